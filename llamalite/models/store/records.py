"""What is remembered of each model file: where it came from, its digest, when it was used.

Owns one JSON file per model file under `home()/records`. Whether the model exists is never read
from here: that the disk says. May import `hub`, `config` and `errors`.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from llamalite import config
from llamalite.errors import ModelError
from llamalite.models.hub.cache import cache_folder
from llamalite.models.store.atomic import locked, read_object, write_json


@dataclass(frozen=True)
class Record:
    """What is remembered of one model file; of a split model, of its first part.

    Attributes:
        path: where it lies, absolute; links are not followed.
        source: "hub", "url", "import" (copied), "link", "wheel"; "" = not known.
        origin: the Hub reference, URL, path or package it came from.
        sha256: digest it had when it came, in lower-case hexadecimal; of a split model the digests
            of its parts, joined with "+".
        added_at: when it came, in seconds since 1970.
        last_used: when it was last loaded, likewise.
        header: what its header said, for `list`; made anew when size or time of the file differ.
        removed: its own name was removed while others still stood for it.
    """

    path: str
    source: str = ""
    origin: str = ""
    sha256: str | None = None
    added_at: float | None = None
    last_used: float | None = None
    header: Mapping[str, Any] | None = None
    removed: bool = False


_FILE_NAME = re.compile(r"[0-9a-f]{32}\.json")
_LATEST = 253_402_300_799.0  # 9999, after which there is no date

_TYPES: dict[str, tuple[type, ...]] = {
    "path": (str,),
    "source": (str,),
    "origin": (str,),
    "sha256": (str,),
    "added_at": (),
    "last_used": (),
    "header": (dict,),
    "removed": (bool,),
}


def records_folder() -> Path:
    """Return the folder the records lie in; it need not exist."""
    return config.home() / "records"


def record_key(path: str | os.PathLike[str]) -> str:
    """Return the spelling of a path that its record goes by."""
    return os.path.normcase(os.path.abspath(path))


def read_record(path: str | os.PathLike[str]) -> Record | None:
    """Return what is remembered of a model file, or None; a damaged record is none."""
    return _read(_file_of(record_key(path)))


def all_records() -> dict[str, Record]:
    """Return every record by `record_key` of its path."""
    found = {}
    with contextlib.suppress(OSError), os.scandir(records_folder()) as entries:
        for entry in entries:
            if entry.name.endswith(".json") and (record := _read(entry.path)):
                found[record.path] = record
    return found


def is_damaged(file: Path) -> bool:
    """Say whether a file has the place of a record, and is none or not of the model it names."""
    if file.parent != records_folder() or not _FILE_NAME.fullmatch(file.name):
        return False
    record = _read(file)
    return record is None or _file_of(record.path) != file


def update_record(path: str | os.PathLike[str], **changes: Any) -> Record:
    """Change fields of a model file's record, which is made if there is none; return it.

    Raises:
        TypeError: a field is unknown.
        ModelError: the record can't be written.
    """
    (record,) = update_records({os.fspath(path): changes})
    return record


def update_records(
    changes: Mapping[str, Mapping[str, Any]], *, durable: bool = True
) -> list[Record]:
    """Change several records as `update_record` does, under one lock.

    Args:
        changes: fields and their values, by path.
        durable: False for what can be found out again.

    Raises:
        TypeError: a field is unknown.
        ModelError: a record can't be written.
    """
    with locked(records_folder()):
        return [_update(record_key(path), fresh, durable) for path, fresh in changes.items()]


def remember_use(path: str | os.PathLike[str]) -> None:
    """Note that a model of the store or the Hub's cache is used now; others are not remembered.

    Where that can't be written, it isn't: no reason not to use the model.
    """
    own = any(Path(path).is_relative_to(root) for root in (config.models_dir(), cache_folder()))
    if own:
        with contextlib.suppress(ModelError):
            update_records({os.fspath(path): {"last_used": time.time()}}, durable=False)


def forget_record(path: str | os.PathLike[str]) -> None:
    """Remove what is remembered of a model file; nothing happens if that is nothing.

    Raises:
        ModelError: the record can't be removed.
    """
    file = _file_of(record_key(path))
    if file.exists():
        with locked(records_folder()):
            file.unlink(missing_ok=True)


def _update(key: str, changes: Mapping[str, Any], durable: bool) -> Record:
    file = _file_of(key)
    record = replace(_read(file) or Record(key), **changes)
    known = {name: value for name, value in asdict(record).items() if value not in (None, "")}
    write_json(file, known, durable=durable)
    return record


def _file_of(key: str) -> Path:
    import hashlib  # PERF: listing models needs it not

    digest = hashlib.sha256(os.fsencode(key)).hexdigest()
    return records_folder() / f"{digest[:32]}.json"


def _read(file: str | os.PathLike[str]) -> Record | None:
    try:
        content = read_object(file)
    except ValueError:
        return None
    if content is None or not isinstance(content.get("path"), str):
        return None
    sound = {
        spec.name: content[spec.name]
        for spec in fields(Record)
        if _is_sound(spec.name, content.get(spec.name))
    }
    return Record(**sound)


def _is_sound(name: str, value: object) -> bool:
    if isinstance(value, float | int) and name in ("added_at", "last_used"):
        return 0 <= value <= _LATEST  # not for infinity, nor for what is no number
    return isinstance(value, _TYPES[name])
