"""The parts of a GGUF header, read and checked one by one against the file's size.

Owns what the magic, version, keys, values and lines of the tensor table may be. Imports the
standard library, `llamalite.errors` and its own package.
Source: GGUF specification (ggml/docs/gguf.md), versions 2 and 3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llamalite.errors import NotGGUF, UnsupportedVersion
from llamalite.gguf.arrays import parse_array
from llamalite.gguf.constants import (
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_DIMS,
    MAX_KEY_BYTES,
    MAX_TENSOR_NAME_BYTES,
    REMOVED_TYPES,
    SCALAR_CODES,
    VERSIONS,
    ValueType,
)
from llamalite.gguf.source import Source, fixed_struct

_HEADER_BYTES = 24
_MIN_FIELD_BYTES = 8 + 1 + 4 + 1
_MIN_TENSOR_BYTES = 8 + 4 + 4 + 8


class Field(NamedTuple):
    """Where a metadata value lies; `value` is None for strings, which are decoded on access."""

    type: ValueType
    start: int
    stop: int
    value: Any


def read_version(source: Source) -> int:
    """Return the version and set the byte order, which the version's own bytes show."""
    magic = source.read(0, min(len(MAGIC), source.size), "the magic")
    if magic != MAGIC:
        found = f"starts with {magic!r}" if magic else "is empty"
        raise NotGGUF(f"is no GGUF file (it {found}): give a .gguf model", path=source.path)
    word = source.read(4, 8, "the version")
    little, big = int.from_bytes(word, "little"), int.from_bytes(word, "big")
    if little in VERSIONS:
        return little
    if big in VERSIONS:
        source.set_byteorder("big")
        return big
    raise UnsupportedVersion(
        f"has GGUF version {min(little, big)} and only 2 and 3 can be read: convert it again with "
        f"llama.cpp's current converter",
        path=source.path,
        offset=4,
    )


def _read_name(source: Source, pos: int, limit: int, what: str) -> tuple[str, int]:
    start, stop = source.string_at(pos, what)
    if stop - start > limit:
        raise source.bad(pos, f"{what} has {stop - start} bytes, more than {limit}")
    try:
        return source.read(start, stop).decode("utf-8"), stop
    except UnicodeDecodeError:
        raise source.bad(pos, f"{what} is no UTF-8") from None


def read_fields(source: Source, count: int) -> tuple[dict[str, Field], int]:
    """Return the metadata's fields in file order, and where the tensor table begins."""
    pos = _HEADER_BYTES
    if count > (source.size - pos) // _MIN_FIELD_BYTES:
        raise source.truncated(16, f"a table of {count} keys")
    fields: dict[str, Field] = {}
    for _ in range(count):
        key, start = _read_name(source, pos, MAX_KEY_BYTES, "a key")
        if not key:
            raise source.bad(pos, "a key is empty")
        if key in fields:
            raise source.bad(pos, f"the key {_shown(key)} comes twice")
        field = _read_value(source, source.u32(start), start + 4, key)
        fields[key] = field
        pos = field.stop
    return fields, pos


def _read_value(source: Source, number: int, pos: int, key: str) -> Field:
    if number == ValueType.STRING:
        return Field(ValueType.STRING, pos, source.string_at(pos, _shown(key))[1], None)
    if number == ValueType.ARRAY:
        array, stop = parse_array(source, pos)
        return Field(ValueType.ARRAY, pos, stop, array)
    if number not in SCALAR_CODES:
        raise source.bad(pos - 4, f"the value of {_shown(key)} has the unknown type {number}")
    kind = ValueType(number)
    size = fixed_struct(source.byteorder, SCALAR_CODES[kind]).size
    return Field(kind, pos, pos + size, source.scalar(kind, pos))


def _shown(key: str) -> str:
    return repr(key if len(key) <= 80 else key[:79] + "…")


def read_alignment(source: Source, fields: dict[str, Field]) -> int:
    """Return what tensor offsets must be multiples of."""
    field = fields.get("general.alignment")
    if field is None:
        return DEFAULT_ALIGNMENT
    value = field.value
    if field.type is not ValueType.UINT32 or value == 0 or value & (value - 1):
        raise source.bad(field.start, "general.alignment is no UINT32 that is a power of two")
    return int(value)


def read_tensor_rows(
    source: Source, pos: int, count: int
) -> tuple[list[tuple[int, str, tuple[int, ...], int, int]], int]:
    """Return (position, name, shape, type number, offset) per tensor, and where they end."""
    if count > (source.size - pos) // _MIN_TENSOR_BYTES:
        raise source.truncated(8, f"a table of {count} tensors")
    layouts = [fixed_struct(source.byteorder, "Q" * n + "IQ") for n in range(MAX_DIMS + 1)]
    rows = []
    names = set()
    for _ in range(count):
        name, after = _read_name(source, pos, MAX_TENSOR_NAME_BYTES, "a tensor's name")
        if name in names:
            raise source.bad(pos, f"the tensor {name!r} comes twice")
        names.add(name)
        n_dims = source.u32(after)
        if n_dims > MAX_DIMS:
            raise source.bad(after, f"tensor {name!r} has {n_dims} dimensions, not 0 to {MAX_DIMS}")
        layout = layouts[n_dims]
        *shape, number, offset = source.unpack(layout, after + 4, f"the entry of tensor {name!r}")
        rows.append((pos, name, tuple(shape), number, offset))
        pos = after + 4 + layout.size
    return rows, pos


def unknown_type(number: int) -> str:
    """Return what is wrong with a tensor of this type, to follow its name in a message."""
    if number in REMOVED_TYPES:
        return (
            f"has the type {REMOVED_TYPES[number]} ({number}), which llama.cpp has removed: "
            f"quantize the model again"
        )
    return f"has the unknown type {number}: a newer llamalite may know it"
