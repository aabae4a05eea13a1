"""One install at a time in one folder, among all processes of this machine.

Owns a lock file. Doesn't know what is done under it. Imports the standard library and
`llamalite.locks`.

The system drops the lock of a process that dies, however it dies.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from llamalite.locks import open_lock, try_lock

LOCK_NAME = ".llamalite.lock"

_PAUSE_S = 0.1


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
        self.handle = open_lock(path)

    def take(self, say: Callable[[str], None]) -> bool:
        """Wait for the lock; False where the file system has none."""
        waiting = False
        while True:
            try:
                is_taken = try_lock(self.handle)
            except OSError as error:
                say(
                    f"note: {self.path.parent} is on a file system without locks "
                    f"({error.strerror or error}): run one install at a time"
                )
                return False
            if not is_taken:
                if not waiting:
                    say(f"another llamalite is installing in {self.path.parent}; waiting")
                waiting = True
                time.sleep(_PAUSE_S)
                continue
            if self._is_current():
                return True
            # The one before us has removed the file that we have the lock of.
            os.close(self.handle)
            self.handle = open_lock(self.path)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self.handle), os.stat(self.path))
        except OSError:
            return False
