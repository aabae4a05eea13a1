"""What can be asked of a pull, and what comes back.

Imports the standard library alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Wish:
    """A model that shall be on this computer.

    Attributes:
        name: as people write it: a short name, an alias, a Hub reference, `https://…gguf`,
            `file://…`.
        file: path in the repository; None = by the name's quantization, or the default one.
        revision: branch, tag or commit; None = the name's, or the main branch.
        force: fetch it though it is here.
        projector: fetch the projector (`mmproj`) that goes with it, too.
    """

    name: str
    file: str | None = None
    revision: str | None = None
    force: bool = False
    projector: bool = True


@dataclass(frozen=True)
class Pulled:
    """A model that is now on this computer.

    Attributes:
        name: what to call it.
        paths: its files; of a split model all parts, in order.
        source: "hub", "wheel", "url" or "import"; "" = it was here, and nobody knows.
        origin: the Hub reference, package, address or path it came from.
        n_bytes: of all `paths` together.
        was_here: nothing had to be fetched or copied.
        projector: the file that reads images for it, or None.
        notes: what was said on the way, a line each.
    """

    name: str
    paths: tuple[Path, ...]
    source: str
    origin: str
    n_bytes: int
    was_here: bool = False
    projector: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The file to load; of a split model, the first part."""
        return self.paths[0]
