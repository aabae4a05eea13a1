"""Exclusive locks on open files, which the system drops with the process that holds them.

Owns how each system does that. Doesn't know what is done under a lock. Imports the standard library
alone.
"""

from __future__ import annotations

import errno
import os
import sys
import time

_PAUSE_S = 0.005
_HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}


def open_lock(path: str | os.PathLike[str], mode: int = 0o666) -> int:
    """Open a lock's file, made if there is none; closing the handle drops the lock.

    Raises:
        OSError: it can't be opened.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), mode)


def try_lock(handle: int) -> bool:
    """Take the lock of an open file; False if another process has it.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        _take(handle)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True


def wait_for_lock(handle: int, limit_s: float) -> bool:
    """Take a lock that others hold for milliseconds only; False if they do after `limit_s`, too.

    Where the file system has no locks, nobody waits: the last one wins.
    """
    give_up = time.monotonic() + limit_s
    while True:
        try:
            if try_lock(handle):
                return True
        except OSError:
            return True
        if time.monotonic() > give_up:
            return False
        time.sleep(_PAUSE_S)


if sys.platform == "win32":
    import msvcrt

    def _take(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _take(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
