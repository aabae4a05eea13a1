"""One install at a time in one folder, among all processes of this machine.

Owns a lock file. Doesn't know what is done under it. Imports the standard library alone.

The system drops the lock of a process that dies, however it dies.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_NAME = ".llamalite.lock"

_PAUSE_S = 0.1
_HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}


@contextmanager
def install_lock(folder: Path, say: Callable[[str], None]) -> Iterator[bool]:
    """Hold a folder's lock while the block runs; waits as long as another holds it.

    Args:
        folder: exists; the lock is a file in it, which is removed at the end.
        say: takes a line when there is a wait, or when the file system has no locks.

    Yields:
        True if the lock is held, False where there are no locks.

    Raises:
        OSError: the folder can't be written.
    """
    path = folder / LOCK_NAME
    lock = _Lock(path)
    held = False
    try:
        held = lock.take(say)
        yield held
    finally:
        if held:
            with contextlib.suppress(OSError):  # Windows keeps a file that is open
                path.unlink()
        os.close(lock.handle)


class _Lock:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.handle = _open(path)

    def take(self, say: Callable[[str], None]) -> bool:
        """Wait for the lock; False where the file system has none."""
        waiting = False
        while True:
            try:
                _take(self.handle)
            except OSError as error:
                if error.errno not in _HELD:
                    say(
                        f"note: {self.path.parent} is on a file system without locks "
                        f"({error.strerror or error}): run one install at a time"
                    )
                    return False
                if not waiting:
                    say(f"another llamalite is installing in {self.path.parent}; waiting")
                waiting = True
                time.sleep(_PAUSE_S)
                continue
            if self._is_current():
                return True
            # The one before us has removed the file that we have the lock of.
            os.close(self.handle)
            self.handle = _open(self.path)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self.handle), os.stat(self.path))
        except OSError:
            return False


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)


if sys.platform == "win32":
    import msvcrt

    def _take(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _take(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
