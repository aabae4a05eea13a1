"""Small JSON files that are whole or absent, whoever else writes and whatever is killed.

Owns the lock of a folder, the write beside and the rename. Doesn't know what the files say. Imports
the standard library and `llamalite.errors` alone.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llamalite.errors import ModelError

LOCK_NAME = ".lock"
UNFINISHED = ".tmp"
"""How the name of a file ends while it is written; one that stays is of a killed process."""

_PATIENCE_S = 10.0
_PAUSE_S = 0.005
_HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder and keep all other processes out while the block runs.

    A process that dies loses the lock. Where the file system has no locks, nobody waits.

    Raises:
        ModelError: the folder can't be written, before or in the block, or another process keeps
            the lock for ten seconds.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The file stays: removing it would let two processes lock two files of one name.
        handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _wait_for(handle, folder)
            yield
        finally:
            os.close(handle)
    except OSError as error:
        raise ModelError(
            f"{error.filename or folder} can't be written ({error.strerror or error}): make room "
            f"or give the right to write there, or set LLAMALITE_HOME to another folder"
        ) from None


def write_json(path: Path, content: Any, *, durable: bool = True) -> None:
    """Replace a file in one step; the folder's lock must be held.

    Args:
        path: the file.
        content: what `json` can write.
        durable: False for what can be found out again, which spares waiting for the disk.

    Raises:
        OSError: it can't be written; what was there before still is.
    """
    unfinished = path.with_name(path.name + UNFINISHED)
    try:
        with open(unfinished, "w", encoding="utf-8") as stream:
            json.dump(content, stream)  # ASCII: a path may hold bytes that are no UTF-8
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(unfinished, path)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def read_object(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Return the JSON object that a file holds; None if there is no file.

    Raises:
        ValueError: it holds something else, or can't be read.
    """
    try:
        with open(path, "rb") as stream:
            content = json.loads(stream.read())
    except FileNotFoundError:
        return None
    except (OSError, RecursionError) as error:
        raise ValueError(getattr(error, "strerror", None) or str(error)) from None
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    return content


def _wait_for(handle: int, folder: Path) -> None:
    """Take a lock; it is held for milliseconds only, unless its holder was stopped."""
    give_up = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return _take(handle)
        except OSError as error:
            if error.errno not in _HELD:
                return None
        if time.monotonic() > give_up:
            raise ModelError(
                f"{folder} is kept locked by another program that uses llamalite: end that, or "
                f"let it go on, and try again"
            )
        time.sleep(_PAUSE_S)


if sys.platform == "win32":
    import msvcrt

    def _take(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _take(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
