"""Arrays in the metadata, decoded when their elements are asked for.

Owns where an array's elements lie. Numeric arrays cost nothing to open; arrays of strings (and of
arrays) are walked once to find their end, which leaves the position of every 64th element behind.
Imports the standard library and `llamalite.gguf`'s constants and source.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from llamalite.gguf.constants import MAX_ARRAY_DEPTH, SCALAR_CODES, ValueType
from llamalite.gguf.source import STRIDE

if TYPE_CHECKING:
    from llamalite.gguf.source import Source

T = TypeVar("T")

_CHUNK = 4096
_HEADER_BYTES = 12
_ITEM_SIZES = {kind: array(code).itemsize for kind, code in SCALAR_CODES.items()}


class Array(Sequence[T], Generic[T]):
    """A metadata array: a sequence whose elements are read from the file on access.

    Slices are lists. Equal to any list, tuple or Array with equal elements. Once the reader is
    closed, access raises GGUFError.

    Attributes:
        type: the elements' ValueType.
    """

    def __init__(self, source: Source, kind: ValueType, start: int, count: int) -> None:
        self.type = kind
        self._source = source
        self._start = start
        self._count = count

    def _run(self, index: int, count: int) -> list[T]:
        """Return `count` elements from `index` on, both within bounds."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            wanted = range(self._count)[index]
            if wanted.step == 1:
                return self._run(wanted.start, len(wanted)) if wanted else []
            return [self._run(i, 1)[0] for i in wanted]
        try:
            position = range(self._count)[index]
        except IndexError:
            raise IndexError(f"index {index} of an array of {self._count} elements") from None
        return self._run(position, 1)[0]

    def __iter__(self) -> Iterator[T]:
        for first in range(0, self._count, _CHUNK):
            yield from self._run(first, min(_CHUNK, self._count - first))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Array | list | tuple):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Array of {self._count} {self.type.name}>"


class NumberArray(Array[Any]):
    """An array of one fixed-size type: int, float or bool elements."""

    def _run(self, index: int, count: int) -> list[Any]:
        item = _ITEM_SIZES[self.type]
        start = self._start + index * item
        values = array(SCALAR_CODES[self.type])
        values.frombytes(self._source.read(start, start + count * item, "an array"))
        if self._source.byteorder != sys.byteorder:
            values.byteswap()
        if self.type is ValueType.BOOL:
            return [self._truth(start + i, value) for i, value in enumerate(values)]
        return values.tolist()

    def _truth(self, pos: int, value: int) -> bool:
        if value > 1:
            raise self._source.bad(pos, f"a truth value is {value}, neither 0 nor 1")
        return value == 1


class StringArray(Array[str]):
    """An array of strings; bytes that are no UTF-8 become lone surrogates (PEP 383)."""

    def __init__(self, source: Source, start: int, count: int, marks: Sequence[int]) -> None:
        super().__init__(source, ValueType.STRING, start, count)
        self._marks = marks

    def _run(self, index: int, count: int) -> list[str]:
        pos = self._source.skip_strings(self._marks[index // STRIDE], index % STRIDE)
        return self._source.texts(pos, count)


class NestedArray(Array[Array[Any]]):
    """An array of arrays."""

    def __init__(
        self, source: Source, start: int, count: int, marks: Sequence[int], depth: int
    ) -> None:
        super().__init__(source, ValueType.ARRAY, start, count)
        self._marks = marks
        self._depth = depth

    def _run(self, index: int, count: int) -> list[Array[Any]]:
        pos = self._marks[index // STRIDE]
        for _ in range(index % STRIDE):
            pos = parse_array(self._source, pos, self._depth + 1)[1]
        arrays = []
        for _ in range(count):
            element, pos = parse_array(self._source, pos, self._depth + 1)
            arrays.append(element)
        return arrays


def parse_array(source: Source, pos: int, depth: int = 0) -> tuple[Array[Any], int]:
    """Return the array whose header lies at `pos`, and where it ends.

    Args:
        source: the file.
        pos: offset of the element type's number.
        depth: how many arrays enclose this one.

    Raises:
        GGUFError: it doesn't fit in the file, nests too deep or has an unknown element type.
    """
    if depth >= MAX_ARRAY_DEPTH:
        raise source.bad(pos, f"arrays nest deeper than {MAX_ARRAY_DEPTH}")
    number, count = source.array_header(pos)
    start = pos + _HEADER_BYTES
    if number in _ITEM_SIZES:
        kind = ValueType(number)
        end = start + count * _ITEM_SIZES[kind]
        source.need(pos, end, f"an array of {count} {kind.name}")
        return NumberArray(source, kind, start, count), end
    if number == ValueType.STRING:
        marks, end = source.walk_strings(start, count)
        return StringArray(source, start, count, marks), end
    if number == ValueType.ARRAY:
        return _parse_nested(source, start, count, depth)
    raise source.bad(pos, f"an array's elements have the unknown type {number}")


def _parse_nested(source: Source, start: int, count: int, depth: int) -> tuple[NestedArray, int]:
    if count > (source.size - start) // _HEADER_BYTES:
        raise source.truncated(start, f"an array of {count} arrays")
    marks = array("Q")
    end = start
    for index in range(count):
        if index % STRIDE == 0:
            marks.append(end)
        end = parse_array(source, end, depth + 1)[1]
    return NestedArray(source, start, count, marks, depth), end
