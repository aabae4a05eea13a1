"""What a name means as far as this computer alone can tell: no network, nothing fetched.

May import `store`, `hub`, `names`, `config` and `errors`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llamalite.errors import ModelNotFound
from llamalite.models.locate.addresses import (
    find_address,
    is_address,
    local_path,
    without_endpoint,
)
from llamalite.models.locate.answers import HubTarget, Located, UrlTarget
from llamalite.models.locate.here import cached_spelling, find_entry_file, find_reference
from llamalite.models.locate.own_names import follow
from llamalite.models.locate.paths import as_path, exists, first_part, is_file, not_found
from llamalite.models.names.catalog import CatalogEntry, find_entry, find_unlisted
from llamalite.models.names.reference import HubReference, parse_reference
from llamalite.models.names.safety import shown

if TYPE_CHECKING:
    from llamalite.models.store.model import InstalledModel
    from llamalite.models.store.spelled import Spelled


def locate(name: str | os.PathLike[str]) -> Located:
    """Say what a name means and where it lies, without the network.

    Args:
        name: a path, or any other name of a model; a path object is only ever a path.

    Raises:
        ModelNotFound: nothing answers to the name.
        AmbiguousFile: several things do; the message lists them.
        InvalidParameter: names lead in a circle, or a reference leads out of its folder.
    """
    text = os.fspath(name)
    path = as_path(text)
    if not is_file(path) and not isinstance(name, str):
        raise not_found(text, path, is_path=True)
    if is_file(path):
        return _from_path(text, path)
    chain = follow(text)
    meant, is_typed = chain.names[-1], len(chain.names) == 1
    try:
        found = _locate_model(meant, is_typed=is_typed)
    except ModelNotFound as error:
        if is_typed:
            raise
        raise ModelNotFound(f"{shown(text)} stands for {shown(meant)}: {error}") from None
    return replace(found, name=text, preset=chain.preset, names=chain.names)


def _locate_model(text: str, *, is_typed: bool) -> Located:
    """Locate a model by a name that is none of the user's own.

    Args:
        text: the name.
        is_typed: False for what a name of the user's own stands for: what that is must not depend
            on the current folder.
    """
    path = as_path(text)
    if path.is_absolute() and is_file(path):
        return _from_path(text, path)
    is_clear = not is_typed or not path.parts or not exists(path.parts[0])
    found = _from_known_place(text, is_clear=is_clear)
    if found and (found.path or isinstance(found.target, UrlTarget)):
        return found
    spelled = _spelled()
    if whole := _only(text, spelled.whole(text)):
        here = _from_installed(text, whole)
        return replace(here, target=found.target) if found and _entry_of(found) else here
    if found:
        return _or_of_family(found, spelled)
    if begun := _only(text, spelled.begun(text)):
        note = f"{text}: taking {begun.name}, which is installed"
        return replace(_from_installed(text, begun), note=note, begins=begun.name)
    raise not_found(text, path, is_typed=is_typed)


def _from_known_place(text: str, *, is_clear: bool) -> Located | None:
    """Locate what a name says the place of: the catalog's, an address, a reference; else None."""
    if entry := find_entry(text):
        return _from_catalog(text, entry)
    if unlisted := find_unlisted(text):
        return _from_hub(text, HubReference(unlisted[0].repo, unlisted[1], explicit=True))
    reference = parse_reference(without_endpoint(text))
    if reference and (reference.explicit or is_clear):
        return _from_hub(text, reference)
    return _from_address(text) if is_address(text) else None


def _from_path(text: str, path: Path) -> Located:
    first, note = first_part(path)
    return Located(text, first, names=(text,), note=note)


def _from_catalog(text: str, entry: CatalogEntry) -> Located:
    """Locate a catalog's model: its own file, else whatever satisfies a name that leaves it open.

    "qwen3:8b" is satisfied by any quantization of that repository.
    """
    target = HubTarget(entry.repo, entry.quant, entry.file, entry=entry)
    if path := find_entry_file(entry):
        return Located(text, path, target)
    if entry.is_default and not entry.is_pinned:
        found = find_reference(HubReference(entry.repo))
        if found:
            return Located(text, found[0], target, note=f"{text}: {found[1]}")
    return Located(text, None, target)


def _or_of_family(found: Located, spelled: Spelled) -> Located:
    """Return the only installed model whose name begins like a family's, or what was found.

    "qwen3" is satisfied by "qwen3:14b" where there is no other.
    """
    entry = _entry_of(found)
    begun = spelled.begun(found.name)
    if entry is None or len(begun) != 1:
        return found
    note = (
        f"{found.name}: taking {begun[0].name}, which is installed ({entry.name}, the default, is "
        f"not)"
    )
    return replace(_from_installed(found.name, begun[0]), target=found.target, note=note)


def _from_hub(text: str, reference: HubReference) -> Located:
    reference = replace(reference, repo=cached_spelling(reference.repo))
    target = _target(reference)
    found = find_reference(reference)
    if found is None:
        return Located(text, None, target)
    return Located(text, found[0], target, note=f"{text}: {found[1]}" if found[1] else "")


def _from_address(text: str) -> Located:
    target = UrlTarget(text)
    path = local_path(text)
    if path is None:
        return Located(text, find_address(text), target)
    if not is_file(path):
        raise ModelNotFound(f"{shown(text)}: there is no file {shown(str(path))}: check it")
    first, note = first_part(path)
    return Located(text, first, target, note=note)


def _entry_of(found: Located) -> CatalogEntry | None:
    return found.target.entry if isinstance(found.target, HubTarget) else None


def _spelled() -> Spelled:
    from llamalite.models.store.installed import installed_models
    from llamalite.models.store.spelled import Spelled

    return Spelled(installed_models())


def _only(text: str, models: list[InstalledModel]) -> InstalledModel | None:
    from llamalite.models.store.finding import only_one

    return only_one(text, models)


def _from_installed(text: str, model: InstalledModel) -> Located:
    reference = parse_reference(model.reference) if model.reference else None
    target = _target(reference) if reference else None
    return Located(text, model.path, target, found=model)


def _target(reference: HubReference) -> HubTarget:
    return HubTarget(reference.repo, reference.quant, reference.file, reference.revision)
