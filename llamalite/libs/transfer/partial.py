"""A file that is being fetched: hashed as it grows, and kept for later when the fetch breaks off.

Owns where partial files lie, who may continue one, and when they go. Doesn't know where the bytes
come from. Imports the standard library, `llamalite.errors`, `expected`,
`patience` and `progress`.

A partial file is named by the digest of the whole, so what is there is only ever continued with
the same. One process at a time may do so: another that wants it starts a file of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from llamalite.errors import ChecksumMismatch
from llamalite.libs.transfer.expected import Expected
from llamalite.libs.transfer.patience import Beat
from llamalite.libs.transfer.progress import Progress

KEPT_S = 7 * 24 * 3600.0
"""How long a partial file that nobody continues is kept."""

_SUFFIX = ".part"
_BLOCK_BYTES = 1 << 20
_HEAD_BYTES = 4


class PartialFile:
    """An open file and the digest of what is in it.

    Attributes:
        path: where it lies.
        n_bytes: its length.
        head: its first bytes.
        is_kept: True if it outlives a fetch that breaks off.
    """

    def __init__(
        self, path: Path, stream: IO[bytes], is_kept: bool, expected: Expected | None = None
    ) -> None:
        self.path, self.stream, self.is_kept = path, stream, is_kept
        self.n_bytes, self.head = 0, b""
        self._expected = expected or Expected()
        self._digest = self._expected.hasher()
        while block := stream.read(_BLOCK_BYTES):
            self._take(block)

    @property
    def digest(self) -> str:
        """Digest of what is there, in hexadecimal, of the kind that was expected."""
        return self._digest.hexdigest()

    @property
    def kept(self) -> str:
        """What to say about it where the fetch breaks off, as the end of a sentence, or ""."""
        return "; what arrived is kept" if self.is_kept and self.n_bytes else ""

    def append(self, block: bytes) -> None:
        """Add bytes at the end."""
        self.stream.write(block)
        self._take(block)

    def _take(self, block: bytes) -> None:
        self._digest.update(block)
        self.head = self.head or block[:_HEAD_BYTES]
        self.n_bytes += len(block)

    def restart(self) -> None:
        """Drop what is there."""
        self.stream.seek(0)
        self.stream.truncate()
        self._digest, self.n_bytes, self.head = self._expected.hasher(), 0, b""

    def finish(self) -> None:
        """Close the file once all of it is on the disk, so that not even a power cut undoes it."""
        self._sync()
        self.stream.close()

    def _sync(self) -> None:
        self.stream.flush()
        os.fsync(self.stream.fileno())

    def move_to(self, into: Path) -> None:
        """Put the finished file in its place."""
        self._sync()
        if sys.platform == "win32":
            self.stream.close()  # an open file can't be renamed there
        if self.path != into:
            shutil.move(self.path, into)


@contextlib.contextmanager
def own_partial(path: Path, expected: Expected) -> Iterator[PartialFile]:
    """Open the partial file at a path, which is the caller's alone: some lock of theirs says so.

    It stays for the next fetch after any error but ChecksumMismatch, even one of the disk: what is
    there took long to come, and a full disk can be emptied elsewhere. Nothing at all isn't kept.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
    stream = open(os.open(path, flags, 0o666), "r+b")  # noqa: SIM115
    part = None
    try:
        part = PartialFile(path, stream, True, expected)
        yield part
    except BaseException as error:
        if isinstance(error, ChecksumMismatch) or (part and not part.n_bytes):
            _close_quietly(stream)
            path.unlink(missing_ok=True)
        raise
    finally:
        _close_quietly(stream)


@contextlib.contextmanager
def partial_file(into: Path, sha256: str | None, cache: Path | None) -> Iterator[PartialFile]:
    """Open the partial file for what shall become `into`, with what an earlier fetch left in it.

    After an error it stays for the next fetch if its digest is known and there is a `cache`, but
    not where it is the disk that failed or what came that was wrong: then it is removed.
    """
    kept = _claim(cache, sha256.lower()) if cache is not None and sha256 else None
    path, stream = kept or (into, open(into, "w+b"))  # noqa: SIM115
    part = None
    try:
        part = PartialFile(path, stream, kept is not None)
        yield part
    except BaseException as error:
        is_wrong = isinstance(error, (OSError, ChecksumMismatch))
        if kept is None or is_wrong or not (part and part.n_bytes):
            _close_quietly(stream)
            path.unlink(missing_ok=True)
        raise
    finally:
        _close_quietly(stream)


def shown_wait(path: Path, name: str, progress: Progress) -> Beat:
    """Return what to call while another process has a partial file: it shows how far that is."""
    is_said = False

    def beat() -> None:
        nonlocal is_said
        if not is_said:
            progress.say(f"another program is fetching {name}: waiting for it")
            is_said = True
        try:
            n_bytes = path.stat().st_size
        except OSError:
            n_bytes = 0
        progress.at(n_bytes)

    return beat


def _close_quietly(stream: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # a full disk, at the last flush: said by a write before it
        stream.close()


def _claim(cache: Path, sha256: str) -> tuple[Path, IO[bytes]] | None:
    """Open a digest's partial file for this process alone; None if another has it."""
    cache.mkdir(parents=True, exist_ok=True)
    _remove_stale(cache)
    path = cache / f"{sha256}{_SUFFIX}"
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
    stream = open(os.open(path, flags, 0o644), "r+b")  # noqa: SIM115
    try:
        # The file may have been finished and moved by its owner between opening and locking.
        if _lock(stream) and os.path.samestat(os.fstat(stream.fileno()), os.stat(path)):
            return path, stream
    except FileNotFoundError:
        pass
    stream.close()
    return None


def _lock(stream: IO[bytes]) -> bool:
    """Take the file's lock, which goes with its closing or its process; False if it is taken."""
    try:
        if sys.platform == "win32":
            import msvcrt

            stream.seek(1 << 40)  # far behind the end: a locked byte can't be read by others
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
            stream.seek(0)
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_stale(cache: Path) -> None:
    for path in cache.glob(f"*{_SUFFIX}"):
        try:
            if time.time() - path.stat().st_mtime > KEPT_S:
                path.unlink()
        except OSError:
            continue
