"""Small JSON files that are whole or absent, whoever else writes and whatever is killed.

Owns the lock of a folder, the write beside and the rename. Doesn't know what the files say. Imports
the standard library, `llamalite.errors` and `llamalite.locks`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llamalite.errors import ModelError
from llamalite.locks import open_lock, wait_for_lock

LOCK_NAME = ".lock"
UNFINISHED = ".tmp"
"""How the name of a file ends while it is written; one that stays is of a killed process."""

_PATIENCE_S = 10.0


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
        handle = open_lock(folder / LOCK_NAME)
        try:
            if not wait_for_lock(handle, _PATIENCE_S):
                raise ModelError(
                    f"{folder} is kept locked by another program that uses llamalite: end that, or "
                    f"let it go on, and try again"
                )
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
        unfinished.unlink(missing_ok=True)  # of a killed process; a link would be written through
        with open(unfinished, "x", encoding="utf-8") as stream:
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
        with open(path, "rb", opener=_open) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise ValueError("no regular file")
            content = json.loads(stream.read())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, RecursionError) as error:
        if getattr(error, "errno", None) == errno.ENAMETOOLONG:
            return None
        raise ValueError(getattr(error, "strerror", None) or str(error)) from None
    if not isinstance(content, dict):
        raise ValueError("no JSON object")
    return content


def _open(path: str, flags: int) -> int:
    # A pipe of that name would wait for its other end.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
