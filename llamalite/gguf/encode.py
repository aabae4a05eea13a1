"""Metadata values to bytes: which type a Python value gets, and how it is written.

Knows no keys and no files. Imports the standard library, `llamalite.gguf.arrays` and constants.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from llamalite.gguf.arrays import Array
from llamalite.gguf.constants import MAX_ARRAY_DEPTH, SCALAR_CODES, ValueType
from llamalite.gguf.source import fixed_struct


class Typed(NamedTuple):
    """A value with its type; for a sequence the type is its elements'. May stand in a sequence."""

    value: Any
    type: ValueType


def encode_value(
    value: Any, kind: ValueType | None, byteorder: str, depth: int = 0
) -> tuple[ValueType, bytes]:
    """Return a value's type and its bytes in a file.

    Args:
        value: bool, int, float, str, bytes, a sequence of those, or Typed.
        kind: its type, for a sequence its elements' type; None chooses. An int becomes UINT32,
            INT32, UINT64 or INT64, the first that holds it; ints in a sequence INT32, INT64 or
            UINT64, the first that holds all; a float FLOAT32; an Array keeps the type it has.
        byteorder: "little" or "big".
        depth: how many sequences enclose it.

    Raises:
        ValueError: the value has no type in GGUF, or doesn't fit the one asked for.
    """
    if isinstance(value, Typed):
        value, kind = value
    if kind is not None:
        kind = ValueType(kind)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return ValueType.ARRAY, _encode_sequence(value, kind, byteorder, depth)
    if kind is None:
        kind = _scalar_type([value], (ValueType.UINT32, ValueType.INT32, *_WIDE))
    return kind, _encode_all([value], kind, byteorder)


_WIDE = (ValueType.UINT64, ValueType.INT64)
_LIMITS = {
    ValueType.UINT32: (0, 2**32 - 1),
    ValueType.INT32: (-(2**31), 2**31 - 1),
    ValueType.UINT64: (0, 2**64 - 1),
    ValueType.INT64: (-(2**63), 2**63 - 1),
}


def _encode_sequence(
    values: Sequence[Any], kind: ValueType | None, byteorder: str, depth: int
) -> bytes:
    if depth >= MAX_ARRAY_DEPTH:
        raise ValueError(f"arrays nest deeper than {MAX_ARRAY_DEPTH}")
    if kind is None:
        kind = values.type if isinstance(values, Array) else _element_type(values)
    header = fixed_struct(byteorder, "IQ").pack(kind, len(values))
    if kind is not ValueType.ARRAY:
        return header + _encode_all(values, kind, byteorder)
    parts = [header]
    for value in values:
        inner, payload = encode_value(value, None, byteorder, depth + 1)
        if inner is not ValueType.ARRAY:
            raise ValueError(f"{value!r} is no sequence, and the others are")
        parts.append(payload)
    return b"".join(parts)


def _element_type(values: Sequence[Any]) -> ValueType:
    if not values:
        raise ValueError("an empty sequence has no element type: give one")
    if any(isinstance(value, Sequence) and not isinstance(value, str | bytes) for value in values):
        return ValueType.ARRAY
    order = (ValueType.INT32, ValueType.INT64, ValueType.UINT64)
    return _scalar_type(values, order)


def _scalar_type(values: Sequence[Any], whole: tuple[ValueType, ...]) -> ValueType:
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return ValueType.BOOL
    if kinds <= {str, bytes}:
        return ValueType.STRING
    if kinds <= {int, float} and float in kinds:
        return ValueType.FLOAT32
    if kinds == {int}:
        for kind in whole:
            low, high = _LIMITS[kind]
            if low <= min(values) and max(values) <= high:
                return kind
        raise ValueError("a whole number doesn't fit 64 bits")
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise ValueError(f"values of type {names} have no one type in GGUF")


def _encode_all(values: Sequence[Any], kind: ValueType, byteorder: str) -> bytes:
    if kind is ValueType.STRING:
        return b"".join(_encode_string(value, byteorder) for value in values)
    if kind is ValueType.ARRAY:
        raise ValueError("a single value is no array")
    if kind is ValueType.BOOL and not all(value in (0, 1) for value in values):
        raise ValueError("a value is neither true nor false")
    order = "<" if byteorder == "little" else ">"
    try:
        return struct.pack(f"{order}{len(values)}{SCALAR_CODES[kind]}", *values)
    except (struct.error, OverflowError, TypeError) as error:
        raise ValueError(f"a value doesn't fit {kind.name} ({error})") from None


def _encode_string(value: Any, byteorder: str) -> bytes:
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    if not isinstance(value, bytes):
        raise ValueError(f"{value!r} is no text")
    return fixed_struct(byteorder, "Q").pack(len(value)) + value
