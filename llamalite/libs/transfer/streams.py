"""The streams an archive is read through: what can't be read is said, and nothing without end.

Owns the line between an archive that can't be read and a disk that can't be written. Imports the
standard library, `llamalite.errors` and `files.bounded`.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from llamalite.errors import DownloadError
from llamalite.libs.files.bounded import open_regular

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_BLOCK_BYTES = 1 << 16


def open_archive(path: Path) -> BinaryIO:
    """Open an archive for reading.

    Raises:
        DownloadError: it can't be read, now or (from the stream's methods) later.
    """
    try:
        with open_regular(path) as stream:
            return io.BufferedReader(_Source(os.dup(stream.fileno()), path))
    except OSError as error:
        raise _unreadable(path, error) from None


class _Source(io.FileIO):
    """A file whose failures are told from those of the disk that is written to."""

    def __init__(self, number: int, path: Path) -> None:
        super().__init__(number, "rb")
        self.path = path

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise _unreadable(self.path, error) from None

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            raise _unreadable(self.path, error) from None


def _unreadable(path: Path, error: OSError) -> DownloadError:
    return DownloadError(f"{path.name} can't be read: {error.strerror or error}")


def too_large(archive: Path, max_bytes: int) -> DownloadError:
    """Return the error for an archive that holds too much."""
    return DownloadError(
        f"{archive.name} unpacks to more than {max_bytes:,} bytes: it was not unpacked, for it "
        f"can be no release of libllama"
    )


class Bounded(io.RawIOBase):
    """A stream that may be read up to a limit, in blocks of bounded size.

    tarfile takes header sizes on trust and would read a lying one into memory whole.
    """

    def __init__(self, stream: gzip.GzipFile, archive: Path, max_bytes: int) -> None:
        self.stream, self.archive, self.max_bytes = stream, archive, max_bytes
        self._last = b""

    def read(self, size: int = -1) -> bytes:
        """Return a block; raises DownloadError once the limit is passed."""
        if size < 0 or size > MAX_BLOCK_BYTES:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        self._last = self.stream.read(size)
        if self.stream.tell() > self.max_bytes:
            raise too_large(self.archive, self.max_bytes)
        return self._last

    def check_end(self) -> None:
        """Read on from the block that tarfile took for the end, which gzip's checksum comes after.

        NOTE: tarfile takes a damaged header for the end of the archive, and never reads past it.

        Raises:
            tarfile.ReadError, OSError, EOFError: more than zeros follows, or the sum is wrong.
        """
        block = self._last
        while block:
            if block.strip(b"\0"):
                raise tarfile.ReadError("what follows its last entry is no end of an archive")
            block = self.read(MAX_BLOCK_BYTES)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset from the beginning, within the limit."""
        if whence != io.SEEK_SET or offset > self.max_bytes:
            raise too_large(self.archive, self.max_bytes)
        return self.stream.seek(offset)

    def tell(self) -> int:
        """Return the offset."""
        return self.stream.tell()

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True
