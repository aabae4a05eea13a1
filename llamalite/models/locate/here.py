"""Which of a repository's models, and of the catalog's, lie on this computer.

May import `store`, `hub`, `names`, `config` and `errors`.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from llamalite import config
from llamalite.errors import ModelNotFound
from llamalite.models.hub.cache import cached_files, repo_folder
from llamalite.models.names.catalog import CatalogEntry
from llamalite.models.names.quantization import bare_name
from llamalite.models.names.reference import HubReference, shard_names
from llamalite.models.names.repository import RepoFile, RepoModel, choose_model, group_models


def find_reference(reference: HubReference) -> tuple[Path, str] | None:
    """Return the file that a reference means and what to say of the choice, or None.

    Args:
        reference: its repository spelled as the cache has it.

    Raises:
        AmbiguousFile: several files of the repository that are here match.
    """
    files = cached_files(reference.repo, reference.revision)
    models = _whole(files)
    if reference.file is not None:
        first = shard_names(reference.file)[0]
        return (files[first], "") if any(model.file == first for model in models) else None
    try:
        choice = choose_model(models, reference.quant, f"this computer's copy of {reference.repo}")
    except ModelNotFound:
        return None
    return files[choice.model.file], "" if reference.quant else choice.reason


def cached_spelling(repo: str) -> str:
    """Return a repository's name in the case in which the cache has it; else as it is.

    The Hub tells no case apart, and the cache's folders do.
    """
    folder = repo_folder(repo)
    if folder.is_dir():
        return repo
    with contextlib.suppress(OSError), os.scandir(folder.parent) as entries:
        for entry in entries:
            if entry.name.casefold() == folder.name.casefold():
                spelled = entry.name.removeprefix("models--")
                at = repo.index("/")
                return f"{spelled[:at]}/{spelled[at + 2 :]}"
    return repo


def find_entry_file(entry: CatalogEntry) -> Path | None:
    """Return where a catalog's file lies, whole and of the right size if that is known, or None.

    As in `llamalite list`, the Hub's copy has the short name where there are two.
    """
    found = find_reference(HubReference(entry.repo, file=entry.file))
    if found and entry.n_bytes in (None, found[0].stat().st_size):
        return found[0]
    path = config.models_dir() / Path(entry.file).name
    if entry.is_pinned and path.is_file() and path.stat().st_size == entry.n_bytes:
        return path  # a wheel brought it
    return None


def find_projector(path: Path, reference: HubReference | None) -> Path | None:
    """Return the file that reads images for a model, beside it or elsewhere in its repository.

    Args:
        path: the model's file, of a split model the first part.
        reference: what it is on the Hub, or None.
    """
    files = cached_files(reference.repo, reference.revision) if reference else {}
    in_repo = path in files.values()
    if not in_repo:
        files = {near.name: near for near in path.parent.glob("*.[gG][gG][uU][fF]")}
    models = _whole(files)
    found = next((m.projector for m in models if files[m.file] == path), None)
    # In a folder of several models, a projector is only known by its name.
    is_shared = not in_repo and len({bare_name(model.file) for model in models}) > 1
    if found is None or (is_shared and bare_name(found) != bare_name(path.name)):
        return None
    return files[found]


def _whole(files: dict[str, Path]) -> list[RepoModel]:
    return [model for model in group_models(map(RepoFile, files)) if not model.missing]
