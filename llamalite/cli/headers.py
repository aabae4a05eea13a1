"""The header of whatever MODEL means: of a file here, or read from where it would be fetched.

Owns that choice. Imports `models`, `gguf` and `errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from llamalite.gguf import GGUFReader
from llamalite.libs.transfer.wording import size_text
from llamalite.models.locate import HubTarget, Located, UrlTarget, locate

Say = Callable[[str], None]


@dataclass(frozen=True)
class Found:
    """A model's header, and what its name meant.

    Attributes:
        reader: of a model that isn't here (`located.path` is None), without the tensors' values.
    """

    located: Located
    reader: GGUFReader


@contextmanager
def open_header(name: str, say: Say) -> Iterator[Found]:
    """Lend a model's header; of one that isn't on this computer nothing else is transferred.

    Args:
        name: whatever names a model.
        say: takes lines on what was chosen where the name left a choice, and what is read.

    Raises:
        LlamaliteError: nothing or too much answers to the name, or it can't be read.
    """
    located = locate(name)
    if located.note:
        say(located.note)
    if located.path is not None:
        reader = GGUFReader(located.path)
    else:
        assert located.target is not None, "what is nowhere is not located"
        reader = _read_remote(located.target, say)
    with reader:
        yield Found(located, reader)


def _read_remote(target: HubTarget | UrlTarget, say: Say) -> GGUFReader:
    from llamalite.models.hub.remote_header import read_hub_header, read_url_header

    if isinstance(target, UrlTarget):
        reader = read_url_header(target.url)
    else:
        reader = read_hub_header(target.repo, *_file_of(target, say))
    say(
        f"not on this computer: {size_text(reader.n_read)} of its {size_text(reader.n_bytes)} "
        f"were read ('llamalite pull' fetches it)"
    )
    return reader


def _file_of(target: HubTarget, say: Say) -> tuple[str, str]:
    """Return the file that is meant, and the revision it is taken from."""
    if target.file is not None:
        return target.file, target.revision or "main"
    from llamalite.models.fit.machine import free_memory
    from llamalite.models.hub.listing import list_repo
    from llamalite.models.names.repository import RepoFile, choose_model, group_models

    listing = list_repo(target.repo, target.revision or "main")
    models = group_models(RepoFile(entry.path, entry.n_bytes) for entry in listing.files)
    free = free_memory() if target.quant is None else None
    choice = choose_model(models, target.quant, target.repo, free)
    if target.quant is None:
        say(choice.reason)
    return choice.model.file, listing.commit
