"""Which model files are loaded, in any process, so that they aren't removed under it.

Owns the shared lock that whoever loads a model holds on its files. Imports the standard library
alone.

The system drops the locks of a process that dies. On Windows an open file can't be removed anyway.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType


class Hold:
    """Files that are in use until this is closed, at the latest with its process.

    A file that can't be opened or locked is not held: that is no reason not to load a model.
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]]) -> None:
        self._handles: list[int] = []
        for path in paths:
            with contextlib.suppress(OSError):
                self._handles.append(_open(path))
                _share(self._handles[-1])

    def close(self) -> None:
        """Let the files go. Idempotent."""
        while self._handles:
            os.close(self._handles.pop())

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def hold(paths: Iterable[str | os.PathLike[str]]) -> Hold:
    """Mark a model's files as in use until the result is closed; it is a context manager, too."""
    return Hold(paths)


def is_held(path: str | os.PathLike[str]) -> bool:
    """Say whether a process, this one included, holds a file; False where that can't be found."""
    with kept_free([path]) as is_free:
        return not is_free


@contextlib.contextmanager
def kept_free(paths: Iterable[str | os.PathLike[str]]) -> Iterator[bool]:
    """Let nobody hold these files while the block runs; False is lent if a process does already."""
    with contextlib.ExitStack() as stack:
        is_free = True
        for path in paths:
            with contextlib.suppress(OSError):
                handle = _open(path)
                stack.callback(os.close, handle)
                is_free = is_free and _take(handle)
        # NOTE: Windows removes no file that is open, not even one that is only kept free.
        if sys.platform == "win32":
            stack.close()
        yield is_free


def _open(path: str | os.PathLike[str]) -> int:
    # A pipe of that name would wait for its other end.
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))


if sys.platform == "win32":

    def _share(handle: int) -> None:
        """Do nothing: the open handle is what keeps the file."""

    def _take(handle: int) -> bool:
        return True
else:
    import fcntl

    def _share(handle: int) -> None:
        for _ in range(10):  # `kept_free` has the lock for a moment
            with contextlib.suppress(BlockingIOError):
                return fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            time.sleep(0.002)
        return None

    def _take(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # NOTE: some network file systems lock only what is open for writing
            return True
        return True
