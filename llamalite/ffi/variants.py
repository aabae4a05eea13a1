"""What can be left out of a libllama that dies on this machine, and the CPU backend's variants.

Opens nothing. Imports the standard library and `llamalite.libs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llamalite.libs.platforms import parse_library_name

if TYPE_CHECKING:
    from llamalite.libs.files.inspect import LibraryFiles

_CPU = "ggml-cpu"


@dataclass(frozen=True)
class Remedies:
    """What is left out of a library because it dies on this machine; by default nothing.

    Attributes:
        use_extra_bufts: False turns off the CPU backend's repacked weights (AMX and others).
        cpu_variant: the CPU backend to take (`haswell`) instead of the best by its own score.
    """

    use_extra_bufts: bool = True
    cpu_variant: str | None = None

    def __str__(self) -> str:
        parts = [] if self.use_extra_bufts else ["use_extra_bufts off"]
        parts += [f"the CPU variant {self.cpu_variant}"] if self.cpu_variant else []
        return " and ".join(parts) or "nothing left out"

    def backends(self, files: LibraryFiles) -> list[Path]:
        """Return the backends to load, in ggml's order: of the CPU's the chosen one, last."""
        chosen = variant_files(files).get(self.cpu_variant or "")
        others = [path for path in files.backends if not _stem(path).startswith(_CPU)]
        return [*others, *([chosen] if chosen else [])]


NO_REMEDIES = Remedies()


def variant_files(files: LibraryFiles) -> dict[str, Path]:
    """Return the CPU backend's variants, such as "haswell", and their files; {} if it has none."""
    prefix = f"{_CPU}-"
    stems = {path: _stem(path) for path in files.backends}
    return {
        stem.removeprefix(prefix): path for path, stem in stems.items() if stem.startswith(prefix)
    }


def _stem(path: Path) -> str:
    named = parse_library_name(path.name)
    return named.stem if named else path.name
