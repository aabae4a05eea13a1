"""Reads of binary files in which every offset and count is checked against the file.

Owns what the readers of ELF, PE and Mach-O share: nothing outside the file is ever asked for, and
what a hostile or cut-off file says ends in LibraryIncompatible and nothing else. Knows no format.
Imports the standard library and `llamalite.errors` alone.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from llamalite.errors import LibraryIncompatible

_Found = TypeVar("_Found")
_MAX_NAME = 4_096
_USUAL_NAME = 64


class Malformed(Exception):
    """Says what is wrong with a file; `parse` turns it into LibraryIncompatible."""


class BinaryFile:
    """An open file and its size.

    Attributes:
        n_bytes: size of the file.
        order: struct's sign for the byte order of what is unpacked.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.n_bytes = os.fstat(stream.fileno()).st_size
        self.order = "<"

    def at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes; raises Malformed where the file has fewer."""
        if offset < 0 or size < 0 or offset + size > self.n_bytes:
            raise Malformed(f"{size} bytes at {offset} lie outside its {self.n_bytes}")
        self._stream.seek(offset)
        found = self._stream.read(size)
        if len(found) != size:
            raise Malformed("it ended while it was read")
        return found

    def check_end(self, end: int) -> None:
        """Raise Malformed where the file ends before `end`.

        A mapping past the end of the file would kill the process when it is touched.
        """
        if end > self.n_bytes:
            raise Malformed(f"it has {self.n_bytes:,} of at least {end:,} bytes")

    def unpack(self, fields: str, block: bytes, offset: int = 0) -> tuple[Any, ...]:
        """Read numbers from bytes in the file's byte order."""
        return struct.unpack_from(self.order + fields, block, offset)

    def string(self, offset: int) -> str:
        """Return the text that ends at the next zero byte; raises Malformed if none is near."""
        for limit in (_USUAL_NAME, _MAX_NAME):
            block = self.at(offset, max(min(limit, self.n_bytes - offset), 0))
            text, end, _rest = block.partition(b"\0")
            if end:
                return text.decode("utf-8", "replace")
        raise Malformed(f"the name at {offset} has no end")


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, at once, whatever kind of file it is.

    Raises:
        OSError: it can't be read, or is no regular file: a pipe would wait for a writer for ever.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise _not_regular(path)  # opening some of them has effects, or another error
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    number = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise _not_regular(path)
    return os.fdopen(number, "rb")


def _not_regular(path: Path) -> OSError:
    return OSError(None, "it is no regular file", str(path))


def parse(path: Path, read: Callable[[BinaryFile], _Found]) -> _Found:
    """Read a library file with one of the readers.

    Raises:
        LibraryIncompatible: the file can't be read or is malformed.
    """
    try:
        with open_regular(path) as stream:
            return read(BinaryFile(stream))
    except OSError as error:
        raise LibraryIncompatible(f"{path} can't be read: {error.strerror or error}") from None
    except (Malformed, struct.error, OverflowError, ValueError) as error:
        raise LibraryIncompatible(
            f"{path} is a damaged or cut-off shared library ({error}): fetch it again"
        ) from None
