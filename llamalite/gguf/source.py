"""A file's bytes, read at offsets in the file's byte order.

Owns the file mapping and the checks that keep every read inside it. Knows of numbers and strings,
not of keys, arrays or tensors. Imports the standard library, `llamalite.errors` and
`llamalite.gguf.constants`.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from array import array
from contextlib import suppress
from functools import cache
from itertools import repeat
from typing import TYPE_CHECKING

from llamalite.errors import BadField, GGUFError, Incomplete, Truncated
from llamalite.gguf.constants import SCALAR_CODES, ValueType

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal

    ByteOrder = Literal["little", "big"]
    Buffer = bytes | mmap.mmap

STRIDE = 64
"""How many strings lie between two remembered positions of an array of strings."""


class Source:
    """Bytes of one file in one byte order; all its reads raise nothing but GGUFError.

    Attributes:
        path: the file as it was given; "" for bytes in memory.
        size: bytes in the file, of which `buffer` may hold the first alone.
    """

    def __init__(self, buffer: Buffer, path: str, *, size: int | None = None) -> None:
        self.buffer = buffer
        self.path = path
        self.size = len(buffer) if size is None else size
        self._closed = False
        self.set_byteorder("little")

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Source:
        """Map a file.

        Raises:
            GGUFError: it can't be opened, or is no regular file.
        """
        name = os.fsdecode(path)
        try:
            # A pipe would block in open(), so what the path names is asked first.
            if not stat.S_ISREG(os.stat(name).st_mode):
                what = "a folder" if os.path.isdir(name) else "no regular file"
                raise GGUFError(f"is {what}: give the path of a .gguf file", path=name)
            with open(name, "rb") as file:
                if os.fstat(file.fileno()).st_size == 0:
                    return cls(b"", name)
                return cls(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), name)
        except (OSError, ValueError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise GGUFError(
                f"can't be opened ({reason}): check the path and its permissions", path=name
            ) from None

    def set_byteorder(self, byteorder: ByteOrder) -> None:
        """Read numbers in this order from now on."""
        self.byteorder: ByteOrder = byteorder
        self._u32 = fixed_struct(byteorder, "I")
        self._u64 = fixed_struct(byteorder, "Q")
        self._array_header = fixed_struct(byteorder, "IQ")

    def close(self) -> None:
        """Unmap the file; reading afterwards raises GGUFError. Idempotent."""
        buffer, self.buffer, self._closed = self.buffer, b"", True
        if isinstance(buffer, mmap.mmap):
            # A view of a tensor may still be held: the mapping then goes when the view does.
            with suppress(BufferError):
                buffer.close()

    def need(self, pos: int, stop: int, what: str) -> None:
        """Raise GGUFError unless the bytes of `what`, which begin at `pos`, are here up to `stop`.

        Raises:
            Truncated: the file has no such bytes.
            Incomplete: the file has them, and they were not given.
        """
        if stop <= len(self.buffer):
            return
        if stop > self.size or self._closed:
            raise self.truncated(pos, what)
        raise Incomplete(
            f"{what} ends at byte {stop}, and the first {len(self.buffer)} bytes alone are here",
            stop,
            path=self.path,
            offset=pos,
        )

    def truncated(self, pos: int, what: str) -> GGUFError:
        """Return the error for something that would end past the end of the file."""
        if self._closed:
            return GGUFError("was closed, so its values can't be read", path=self.path)
        return Truncated(
            f"{what} ends past the end of the file, which has {self.size} bytes: download it again",
            path=self.path,
            offset=pos,
        )

    def bad(self, pos: int | None, message: str) -> BadField:
        """Return the error for something that the format doesn't allow."""
        return BadField(message, path=self.path, offset=pos)

    def unpack(self, layout: struct.Struct, pos: int, what: str = "a number") -> tuple[Any, ...]:
        """Return the numbers at `pos`."""
        self.need(pos, pos + layout.size, what)
        return layout.unpack_from(self.buffer, pos)

    def u32(self, pos: int) -> int:
        """Return the uint32 at `pos`."""
        return int(self.unpack(self._u32, pos)[0])

    def u64(self, pos: int) -> int:
        """Return the uint64 at `pos`."""
        return int(self.unpack(self._u64, pos)[0])

    def array_header(self, pos: int) -> tuple[int, int]:
        """Return the element type's number and the count of the array at `pos`."""
        kind, count = self.unpack(self._array_header, pos, "an array")
        return kind, count

    def scalar(self, kind: ValueType, pos: int) -> int | float | bool:
        """Return the number or truth value at `pos`."""
        (value,) = self.unpack(fixed_struct(self.byteorder, SCALAR_CODES[kind]), pos)
        if kind is ValueType.BOOL:
            if value > 1:
                raise self.bad(pos, f"a truth value is {value}, neither 0 nor 1")
            return bool(value)
        return value  # type: ignore[no-any-return]

    def read(self, start: int, stop: int, what: str = "a value") -> bytes:
        """Return a copy of the bytes from `start` up to `stop`."""
        self.need(start, stop, what)
        return self.buffer[start:stop]

    def view(self, start: int, stop: int) -> memoryview:
        """Return the bytes from `start` up to `stop`, uncopied."""
        self.need(start, stop, "a tensor")
        return memoryview(self.buffer)[start:stop]

    def string_at(self, pos: int, what: str = "a string") -> tuple[int, int]:
        """Return where the bytes of the string at `pos` start and stop."""
        start = pos + 8
        stop = start + self.u64(pos)
        self.need(pos, stop, what)
        return start, stop

    def text(self, start: int, stop: int) -> str:
        """Return bytes as text; bytes that are no UTF-8 become lone surrogates (PEP 383)."""
        return self.read(start, stop, "a string").decode("utf-8", "surrogateescape")

    def texts(self, pos: int, count: int) -> list[str]:
        """Return `count` strings that begin at `pos`, as `text` does."""
        buffer, read_length = self.buffer, self._u64.unpack_from
        texts = []
        try:
            for _ in repeat(None, count):
                start = pos + 8
                pos = start + read_length(buffer, pos)[0]
                texts.append(buffer[start:pos].decode("utf-8", "surrogateescape"))
        except (struct.error, IndexError, OverflowError):
            pos = self.size + 1
        if pos > len(buffer):
            raise self.truncated(pos, "a string")
        return texts

    def skip_strings(self, pos: int, count: int) -> int:
        """Return where `count` strings that begin at `pos` end."""
        skip = _skip_in_pairs if self.byteorder == "little" else _skip_one_by_one
        try:
            end = skip(self.buffer, pos, count, self._u64.unpack_from)
        except (struct.error, IndexError, OverflowError):
            end = self.size + 1
        if end > len(self.buffer):
            for _ in range(count):  # again, slowly, to find which string it is
                pos = self.string_at(pos)[1]
        return end

    def walk_strings(self, pos: int, count: int) -> tuple[array[int], int]:
        """Return the position of every STRIDE-th string of an array, and where the array ends."""
        if count > (self.size - pos) // 8:
            raise self.truncated(pos, f"an array of {count} strings")
        marks = array("Q")
        full, rest = divmod(count, STRIDE)
        for _ in range(full):
            marks.append(pos)
            pos = self.skip_strings(pos, STRIDE)
        if rest:
            marks.append(pos)
            pos = self.skip_strings(pos, rest)
        return marks, pos


@cache
def fixed_struct(byteorder: str, codes: str) -> struct.Struct:
    """Return the unpadded layout of these `struct` codes in a byte order."""
    return struct.Struct(("<" if byteorder == "little" else ">") + codes)


@cache
def _pair_readers() -> list[Callable[[Buffer, int], tuple[int, int]]]:
    """Return, per length of a string, what reads that length and the next string's length."""
    return [struct.Struct(f"<Q{length}xQ").unpack_from for length in range(256)]


def _skip_in_pairs(
    buffer: Buffer, pos: int, count: int, read_length: Callable[[Buffer, int], tuple[int, ...]]
) -> int:
    # PERF: a call per string costs most of the time here. The low byte of a length says where the
    # next length lies if the string has fewer than 256 bytes; one call then reads both, and the
    # first one, read whole, tells whether the guess was right.
    readers = _pair_readers()
    for _ in repeat(None, count >> 1):
        guess = buffer[pos]
        first, second = readers[guess](buffer, pos)
        if first != guess:
            (second,) = read_length(buffer, pos + 8 + first)
        pos += first + second + 16
    return _skip_one_by_one(buffer, pos, count & 1, read_length)


def _skip_one_by_one(
    buffer: Buffer, pos: int, count: int, read_length: Callable[[Buffer, int], tuple[int, ...]]
) -> int:
    for _ in repeat(None, count):
        (length,) = read_length(buffer, pos)
        pos += length + 8
    return pos
