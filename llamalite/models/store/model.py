"""What is known of one model on this computer. Imports the standard library alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_SUFFIX = re.compile(r"(?:-\d{5}-of-\d{5})?\.gguf$", re.I)


@dataclass(frozen=True)
class InstalledModel:
    """A model whose files are all on this computer.

    Attributes:
        name: what to call it: a short name, "owner/repo:QUANT", "owner/repo/FILE.gguf" (with
            "@REVISION" unless that is main), or the file's name without ".gguf".
        reference: of a model in the Hub's cache, the full "owner/repo/FILE.gguf[@REVISION]".
        revision: of a model in the Hub's cache, the branch, tag or commit.
        paths: its files; of a split model in order.
        source: "hub", "url", "import", "link", "wheel", or "file" where nothing is remembered.
        origin: where it came from: a repository, an address, a path, a package; "" = not known.
        n_bytes: of all its files together, without the projector.
        modified: when its files were last changed, in seconds since 1970.
        quantization: such as "Q4_K_M"; None = neither name nor header says.
        n_params: weights in all; None = the header doesn't say.
        architecture: such as "llama", likewise.
        n_ctx_train: context it was trained for, in tokens, likewise.
        projector: the `mmproj` file that goes with it, or None.
        names: aliases and presets that stand for it.
        last_used: when it was last loaded, in seconds since 1970; None = not known.
        sha256: digest its one file should have, in lower-case hexadecimal; None = not known.
        is_unnamed: its own name was removed, and `names` keep it.
        own_name: that name, which `name` then isn't; else "".
    """

    name: str
    reference: str | None
    revision: str | None
    paths: tuple[Path, ...]
    source: str
    origin: str
    n_bytes: int
    modified: float
    quantization: str | None
    n_params: int | None
    architecture: str | None
    n_ctx_train: int | None
    projector: Path | None = None
    names: tuple[str, ...] = ()
    last_used: float | None = None
    sha256: str | None = None
    is_unnamed: bool = False
    own_name: str = ""

    @property
    def path(self) -> Path:
        """The file to give to a loader: the only one, or the first part."""
        return self.paths[0]

    def spellings(self) -> tuple[str, ...]:
        """Return all that the model answers to, without aliases and presets."""
        stem = stem_of(self.path.name)
        called = (self.name, self.own_name) if self.own_name else (self.name,)
        if self.reference is None:
            return (*called, stem, self.path.name)
        repo = "/".join(self.reference.split("/")[:2])
        at = "" if self.revision == "main" else f"@{self.revision}"
        full = [*called, self.reference, repo + at]
        if self.quantization is not None:
            full.append(f"{repo}:{self.quantization}{at}")
        without_owner = [spelled.partition("/")[2] for spelled in full if "/" in spelled]
        return (*full, *without_owner, stem)


def suffix_of(name: str) -> str:
    """Return what `stem_of` leaves away."""
    return name[len(stem_of(name)) :]


def stem_of(name: str) -> str:
    """Return a file's name without ".gguf" and the number of its part."""
    return _SUFFIX.sub("", name)
