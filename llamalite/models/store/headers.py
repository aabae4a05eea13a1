"""What `list` shows of a model's header, remembered in its record.

Owns which facts those are and when they are stale. May import `gguf` and `errors`; the reader only
where a header was not read before.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from llamalite.errors import BadField, LlamaliteError
from llamalite.models.store.records import Record, update_records

_NO_MODELS = frozenset({"adapter", "mmproj", "imatrix", "vocab", "clip-vision"})
_TOO_MANY = 1 << 63


class HeaderFacts(NamedTuple):
    """Facts from a model's header; None = the header doesn't say.

    Attributes:
        n_bytes: of all parts together when the header was read.
        mtime_ns: when the youngest part was changed, likewise.
        type: `general.type`.
        scheme: usual name of the quantization.
    """

    n_bytes: int
    mtime_ns: int
    architecture: str | None = None
    type: str | None = None
    scheme: str | None = None
    n_params: int | None = None
    n_ctx_train: int | None = None


_NUMBER, _TEXT = (int, type(None)), (str, type(None))
_TYPES: dict[str, tuple[type, ...]] = {
    "n_bytes": (int,),
    "mtime_ns": (int,),
    "architecture": _TEXT,
    "type": _TEXT,
    "scheme": _TEXT,
    "n_params": _NUMBER,
    "n_ctx_train": _NUMBER,
}


class Headers:
    """Facts of many models' headers, read from the files only where they are new or changed."""

    def __init__(self) -> None:
        self._fresh: dict[str, dict[str, object]] = {}

    def facts(
        self, path: Path, statuses: Sequence[os.stat_result], record: Record | None
    ) -> HeaderFacts:
        """Return what a model's header says.

        Args:
            path: the model's first part.
            statuses: of all its parts.
            record: what is remembered of the model.

        Raises:
            GGUFError: the file is no whole GGUF model.
        """
        n_bytes = sum(status.st_size for status in statuses)
        mtime_ns = max(status.st_mtime_ns for status in statuses)
        known = _remembered(record.header) if record and record.header else None
        if known is None or (known.n_bytes, known.mtime_ns) != (n_bytes, mtime_ns):
            known = _read(path, n_bytes, mtime_ns)
            self._fresh[os.fspath(path)] = {"header": known._asdict()}
        check_type(path, known.type, known.architecture)
        return known

    def remember(self) -> None:
        """Keep what was read, where the records can be written; it is only kept for speed."""
        if self._fresh:
            with contextlib.suppress(LlamaliteError):
                update_records(self._fresh, durable=False)


def check_type(path: Path, kind: str | None, architecture: str | None) -> None:
    """Refuse a GGUF file that is no model.

    Args:
        path: for the message.
        kind: `general.type`.
        architecture: `general.architecture`.

    Raises:
        BadField: it holds something else.
    """
    if kind in _NO_MODELS or architecture == "clip":
        raise BadField(f"holds no model but {kind or 'a projector'}", path=path)


def _read(path: Path, n_bytes: int, mtime_ns: int) -> HeaderFacts:
    from llamalite.gguf import GGUFReader

    with GGUFReader(path) as reader:
        summary = reader.summary
    return HeaderFacts(
        n_bytes,
        mtime_ns,
        summary.architecture,
        summary.type,
        summary.file_type_name,
        summary.n_params,
        summary.n_ctx_train,
    )


def _remembered(header: Mapping[str, object]) -> HeaderFacts | None:
    if header.keys() != _TYPES.keys():
        return None
    if not all(isinstance(value, _TYPES[name]) for name, value in header.items()):
        return None
    if any(isinstance(value, int) and not 0 <= value < _TOO_MANY for value in header.values()):
        return None
    return HeaderFacts(**header)  # type: ignore[arg-type]
