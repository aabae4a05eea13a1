"""Hub references, `[hf:]owner/repo:QUANT` and `[hf:]owner/repo/path/file.gguf`, and split models.

Owns how such names are read and which file of a repository they mean. Pure: touches neither disk
nor network. May import `errors` alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from llamalite.errors import AmbiguousFile, ModelNotFound

_REFERENCE = re.compile(
    r"(?P<hf>hf:(?://)?)?"
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
    r"(?::(?P<quant>[\w.-]+)|/(?P<file>[^\\]+\.gguf))?",
    re.I,
)
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})(\.gguf)$", re.I)


@dataclass(frozen=True)
class HubReference:
    """A model on the Hub, named by its quantization or by its file.

    Attributes:
        explicit: True if it was written with "hf:", so that it can't be meant as a path.
    """

    repo: str
    quant: str | None = None
    file: str | None = None
    explicit: bool = False

    def __str__(self) -> str:
        tail = f"/{self.file}" if self.file else f":{self.quant}" if self.quant else ""
        return self.repo + tail


def parse_reference(name: str) -> HubReference | None:
    """Return the reference a name spells, or None if it can't be one."""
    match = _REFERENCE.fullmatch(name.strip())
    if match is None or ".." in name.split("/"):
        return None
    explicit = match["hf"] is not None
    if not explicit and match["file"] is None and match["repo"].lower().endswith(".gguf"):
        return None  # a relative path
    return HubReference(match["repo"], match["quant"], match["file"], explicit)


def shard_names(file: str) -> list[str]:
    """Return the names of all parts of a split model, given any of them; else the name alone."""
    match = _SHARD.search(file)
    if match is None:
        return [file]
    stem, n_shards = file[: match.start()], int(match[2])
    return [f"{stem}-{i:05}-of-{match[2]}{match[3]}" for i in range(1, n_shards + 1)] or [file]


def pick_file(files: Iterable[str], reference: HubReference) -> str:
    """Choose the one GGUF of a repository that a reference means; of a split model, the first part.

    A quantization matches whatever its case, and whole: Q4_K never takes Q4_K_M.

    Raises:
        ModelNotFound: no file matches; the message lists those there are.
        AmbiguousFile: several match; the message lists them.
    """
    models = sorted({shard_names(file)[0] for file in files if _is_model(file)})
    if reference.file is not None:
        wanted = shard_names(reference.file)[0]
        matching = [file for file in models if file == wanted]
    else:
        matching = [file for file in models if _has_quant(file, reference.quant or "")]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise AmbiguousFile(
            f"{reference} means any of {', '.join(matching)}: name one of them as "
            f"{reference.repo}/FILE"
        )
    there = ", ".join(models[:30]) + (", …" if len(models) > 30 else "")
    raise ModelNotFound(
        f"{reference.repo} has no GGUF file for {reference.quant or reference.file}; "
        f"it has {there or 'none at all'}"
    )


def _is_model(file: str) -> bool:
    name = PurePosixPath(file).name.lower()
    return name.endswith(".gguf") and "mmproj" not in name


def _has_quant(file: str, quant: str) -> bool:
    """Say whether a quantization's name ends the file's, or is that of a folder it lies in."""
    path = PurePosixPath(file)
    stem = _SHARD.sub(r"\3", path.name)
    # An underscore may come before a quantization's name (m_Q4_K_M), but is also part of it: K_M
    # doesn't begin like one.
    before = "[-._]" if re.match(r"(ud-)?[a-z]{1,5}\d", quant, re.I) else "[-.]"
    ends = re.search(rf"(?:^|{before}){re.escape(quant)}\.gguf$", stem, re.I)
    return bool(ends) or quant.lower() in (part.lower() for part in path.parts[:-1])
