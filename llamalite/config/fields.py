"""Fields of a settings class: what each may hold and what it is for, said once.

Owns the kinds of fields and their checks. Doesn't know which settings there are. Imports the
standard library, `llamalite.errors` and `places`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from llamalite.config.places import user_path
from llamalite.errors import InvalidParameter

MAX_INT32 = 2**31 - 1
MAX_UINT32 = 2**32 - 1

_MOST_SHOWN = 60


def number(default: float | None, low: float, high: float, doc: str, **more: Any) -> Any:
    """Make a field for a number from `low` to `high`; `open_low=True` leaves `low` itself out."""
    return _field(default, "number", doc, low=low, high=high, **more)


def whole(default: int | None, low: int, high: int, doc: str, **more: Any) -> Any:
    """Make a field for a whole number from `low` to `high`.

    `none_as=-1` lets files and variables, which can't say None, write -1 for it.
    """
    return _field(default, "whole", doc, low=low, high=high, **more)


def flag(default: bool, doc: str) -> Any:
    """Make a field that is true or false."""
    return _field(default, "flag", doc)


def text(default: str | None, doc: str, *, may_be_empty: bool = False, **more: Any) -> Any:
    """Make a field for text without NUL characters; `among` lists what it may be, in any case."""
    return _field(default, "text", doc, may_be_empty=may_be_empty, **more)


def texts(default: tuple[str, ...], doc: str, **more: Any) -> Any:
    """Make a field for non-empty strings.

    `is_secret=True` keeps them off the screen; `among` lists those there are.
    """
    return _field(default, "texts", doc, **more)


def table(doc: str) -> Any:
    """Make a field for a mapping, which the class itself checks; the default is an empty one."""
    empty: Mapping[Any, Any] = MappingProxyType({})
    return field(default_factory=lambda: empty, metadata={"kind": "table", "doc": doc})


def _field(default: Any, kind: str, doc: str, **more: Any) -> Any:
    return field(default=default, metadata={"kind": kind, "doc": doc, **more})


def check_fields(made: Any) -> None:
    """Check every field of a new frozen dataclass, putting values into their settled form.

    Raises:
        InvalidParameter: a value has the wrong type or is out of range; `param` names the field.
    """
    for spec in fields(made):
        value = getattr(made, spec.name)
        if (settled := checked(spec, value)) is not value:
            object.__setattr__(made, spec.name, settled)


def checked(spec: Field[Any], value: Any) -> Any:
    """Return a field's value in its settled form.

    Tables and lists of tables are as they are: their class checks them.

    Raises:
        InvalidParameter: the value has the wrong type or is out of range; `param` names the field.
    """
    check = _CHECKS.get(spec.metadata.get("kind", ""))
    if check is None or (value is None and spec.default is None):
        return value
    return check(spec.name, value, spec.metadata)


def _check_number(name: str, value: Any, meta: Mapping[str, Any]) -> Any:
    is_whole = meta["kind"] == "whole"
    if isinstance(value, bool) or not isinstance(value, int if is_whole else (int, float)):
        what = "a whole number" if is_whole else "a number"
        raise InvalidParameter(f"{name} must be {what}, not {shown(value)}", param=name)
    below = value <= meta["low"] if meta.get("open_low") else value < meta["low"]
    if below or value > meta["high"] or math.isnan(value):
        raise InvalidParameter(
            f"{name} is {shown(value)}, outside {limits(meta)} ({meta['doc']})", param=name
        )
    return value


def _check_flag(name: str, value: Any, meta: Mapping[str, Any]) -> Any:
    if not isinstance(value, bool):
        raise InvalidParameter(f"{name} must be true or false, not {shown(value)}", param=name)
    return value


def _check_text(name: str, value: Any, meta: Mapping[str, Any]) -> Any:
    if not isinstance(value, str) or "\0" in value:
        raise InvalidParameter(
            f"{name} must be text without NUL characters, not {shown(value)}", param=name
        )
    if not value and not meta["may_be_empty"]:
        raise InvalidParameter(f"{name} must not be empty", param=name)
    known = meta.get("among")
    if known and (value := value.lower()) not in known:
        raise InvalidParameter(
            f"{name} is {shown(value)}, which is not one of {', '.join(known)}", param=name
        )
    return value


def _check_texts(name: str, value: Any, meta: Mapping[str, Any]) -> Any:
    is_one = isinstance(value, str | Mapping) or not isinstance(value, Iterable)
    items = (value,) if is_one else tuple(value)
    if not all(isinstance(item, str) and item for item in items):
        instead = "" if meta.get("is_secret") else f", not {shown(value)}"
        raise InvalidParameter(f"{name} must be non-empty strings{instead}", param=name)
    known = meta.get("among")
    if known and (unknown := [item for item in items if item not in known]):
        raise InvalidParameter(
            f"{name} names {shown(unknown[0])}, which is not one of {', '.join(known)}", param=name
        )
    return items


def _check_folder(name: str, value: Any, meta: Mapping[str, Any]) -> Any:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise InvalidParameter(f"{name} must be a folder's path, not {shown(value)}", param=name)
    return user_path(str(value), name)


_CHECKS: dict[str, Callable[[str, Any, Mapping[str, Any]], Any]] = {
    "number": _check_number,
    "whole": _check_number,
    "flag": _check_flag,
    "text": _check_text,
    "texts": _check_texts,
    "folder": _check_folder,
}


def limits(meta: Mapping[str, Any]) -> str:
    """Return a number's range as it is written in mathematics, such as `(0, 1e+06]`."""
    low, high = (f"{end:g}" if isinstance(end, float) else str(end) for end in
                 (meta["low"], meta["high"]))  # fmt: skip
    return f"{'(' if meta.get('open_low') else '['}{low}, {high}]"


def plain(value: Any) -> Any:
    """Return a value as JSON and TOML know it: lists, dicts with text for keys, paths as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    is_infinite = isinstance(value, float) and math.isinf(value)  # which JSON doesn't know
    return str(value) if isinstance(value, Path) or is_infinite else value


def shown(value: Any) -> str:
    """Return a value as an error shows it: in quotes, in one line, not long."""
    try:
        written = repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        written = "a number of thousands of digits"
    return written if len(written) <= _MOST_SHOWN else written[:_MOST_SHOWN] + "…"
