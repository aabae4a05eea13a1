"""The header of whatever MODEL means: of a file here, or read from where it would be fetched.

Owns that choice. Imports `models`, `gguf` and `errors`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from llamalite.gguf import GGUFReader
from llamalite.libs.transfer.progress import Say
from llamalite.libs.transfer.wording import size_text
from llamalite.models.fit.plan import Projector
from llamalite.models.locate import HubTarget, Located, UrlTarget, locate
from llamalite.models.locate.here import find_projector


@dataclass(frozen=True)
class Found:
    """A model's header, and what its name meant.

    Attributes:
        reader: of a model that isn't here (`located.path` is None), without the tensors' values.
        projector: the file that reads images for it, wherever that is; None = there is none.
    """

    located: Located
    reader: GGUFReader
    projector: Projector | None = None


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
    found = _read_here(located) if located.path is not None else _read_remote(located, say)
    with found.reader:
        yield found


def _read_here(located: Located) -> Found:
    assert located.path is not None
    reference = located.target.reference if isinstance(located.target, HubTarget) else None
    path = find_projector(located.path, reference)
    projector = Projector(str(path), path.stat().st_size) if path else None
    return Found(located, GGUFReader(located.path), projector)


def _read_remote(located: Located, say: Say) -> Found:
    from llamalite.models.hub.address import leading_on
    from llamalite.models.hub.listing import list_repo
    from llamalite.models.hub.remote_header import read_hub_header, read_url_header
    from llamalite.models.pull.hub import choose

    target, projector = located.target, None
    assert target is not None, "what is nowhere is not located"
    if isinstance(target, UrlTarget):
        reader = read_url_header(target.url)
    else:
        with leading_on(f"{located.name} isn't on this computer"):
            listing = list_repo(target.repo, target.revision or "main")
        model = choose(listing, target, say)
        if entry := listing.entry(model.projector or ""):
            projector = Projector(f"{target.repo}/{entry.path}", entry.n_bytes)
        reader = read_hub_header(target.repo, model.file, listing.commit)
    say(
        f"not on this computer: {size_text(reader.n_read)} of its {size_text(reader.n_bytes)} "
        f"were read ('llamalite pull' fetches it)"
    )
    return Found(located, reader, projector)
