"""From what the user calls a model to its file, fetched if it isn't here.

Owns that step alone: `locate` reads names, `pull` fetches. May import both, and what they may.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llamalite.errors import DownloadError, ModelNotFound
from llamalite.libs.transfer.progress import Say
from llamalite.models.locate import HubTarget, Located, locate
from llamalite.models.locate.here import find_projector
from llamalite.models.locate.spellings import known_as
from llamalite.models.names.safety import shown

if TYPE_CHECKING:
    from llamalite.config import ModelConfig
    from llamalite.models.pull import Report

__all__ = ["Resolved", "resolve", "resolve_model"]


@dataclass(frozen=True)
class Resolved:
    """A model that is on this computer.

    Attributes:
        name: as it was given.
        path: its file, of a split model the first part.
        preset: settings of the aliases and presets on the way; None if there were none.
        projector: the file that reads images for it, or None.
        names: the given one, those on the way to the model, and what else it is called; the
            configuration may say something about each.
    """

    name: str
    path: Path
    preset: ModelConfig | None = None
    projector: Path | None = None
    names: tuple[str, ...] = ()


def resolve_model(name: str | os.PathLike[str], say: Say | None = None) -> Path:
    """Return the path of a model's GGUF file alone; see `resolve`."""
    return resolve(name, say).path


def resolve(
    name: str | os.PathLike[str], say: Say | None = None, report: Report | None = None
) -> Resolved:
    """Return a model's files and settings, fetching what isn't on this computer.

    Args:
        name: see `llamalite.models.locate`. A path object is only ever a path.
        say: takes one line at a time of what is being done; None = nothing is said.
        report: takes how far a download is; None = it shows on stderr, as a bar on a terminal and
            in lines elsewhere, or in lines to `say`.

    Raises:
        ModelNotFound: nothing answers to the name.
        AmbiguousFile: several things do.
        InvalidParameter: the name leads in a circle or out of its folder.
        Offline: it would have to be fetched and network use is switched off.
        DownloadError: it can't be fetched.
        ChecksumMismatch: what was fetched is not the model.
    """
    located = locate(name)
    if located.path is None:
        path = _fetch(located, say, report)
    else:
        path = located.path
        if located.note and say:
            say(located.note)
    reference = located.target.reference if isinstance(located.target, HubTarget) else None
    projector = find_projector(path, reference)
    names = known_as(located, path)
    return Resolved(located.name, path, located.preset, projector, names)


def _fetch(located: Located, say: Say | None, report: Report | None) -> Path:
    from llamalite.models.pull import Wish, pull

    try:
        return pull(Wish(located.name), say, report).path
    except (ModelNotFound, DownloadError) as error:
        if not _may_be_path(located):
            raise
        # What was meant as a path deserves to hear that there is no such file.
        raise type(error)(f"{shown(located.name)} is no file here, and {error}") from error


def _may_be_path(located: Located) -> bool:
    target = located.target
    is_reference = isinstance(target, HubTarget) and target.entry is None and target.quant is None
    return is_reference and not located.name.lower().startswith("hf:")
