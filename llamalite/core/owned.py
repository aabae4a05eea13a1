"""Ownership of native handles: closed once, in the right order, never while Python shuts down.

Imports the standard library and `llamalite.errors`.
"""

from __future__ import annotations

import atexit
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import ClassVar, TypeVar

from llamalite.errors import EngineClosed, EngineError

_O = TypeVar("_O", bound="Owned")

_guard = threading.Condition(threading.RLock())


class _Native:
    """A native object and those that must be freed before it.

    Apart from the Python objects around it, because the garbage collector finalizes a cycle of
    those in any order, and weak references to them are gone by then.
    """

    def __init__(self, handle: int, free: Callable[[int], object], parent: _Native | None) -> None:
        self.handle: int | None = handle
        self.users: list[int] = []
        self._free, self._parent = free, parent
        self._children: set[_Native] = set()
        if parent is not None:
            with _guard:
                parent._children.add(self)

    def all_users(self) -> list[int]:
        return [*self.users, *(user for child in self._children for user in child.all_users())]

    def close(self) -> None:
        handle, self.handle = self.handle, None
        if handle is None:
            return
        for child in list(self._children):
            child.close()
        if self._parent is not None:
            self._parent._children.discard(self)
        self._free(handle)


class _Use:
    """PERF: every step enters one, and a generator would take three times as long."""

    __slots__ = ("_owned", "_user", "_users")

    def __init__(self, owned: Owned) -> None:
        self._owned, self._users = owned, owned._native.users
        self._user = threading.get_ident()

    def __enter__(self) -> int:
        with _guard:
            handle = self._owned.handle
            self._users.append(self._user)
        return handle

    def __exit__(self, *_exc: object) -> None:
        with _guard:
            self._users.remove(self._user)
            _guard.notify_all()


class Owned:
    """Base of objects that own a native handle.

    An object closes what depends on it before itself, and everything still open is closed when
    the interpreter begins to exit, because GPU backends complain about what is left.

    Args:
        handle: the native pointer.
        free: the native function that frees it; must not refer to this object.
        parent: what must outlive it.
    """

    _open: ClassVar[weakref.WeakSet[Owned]] = weakref.WeakSet()

    def __init__(
        self, handle: int, free: Callable[[int], object], parent: Owned | None = None
    ) -> None:
        self._native: _Native = _Native(
            handle, free, parent._native if parent is not None else None
        )
        with _guard:
            Owned._open.add(self)

    @property
    def handle(self) -> int:
        """The native pointer.

        Raises:
            EngineClosed: it was closed before.
        """
        if self._native.handle is None:
            raise EngineClosed(f"this {type(self).__name__} is closed: open a new one")
        return self._native.handle

    @property
    def closed(self) -> bool:
        """Say whether the native object is gone."""
        return self._native.handle is None

    def in_use(self) -> AbstractContextManager[int]:
        """Give the native pointer, and keep other threads from closing it meanwhile.

        Entering it raises EngineClosed if it was closed before.
        """
        return _Use(self)

    def close(self) -> None:
        """Free the native object and all that depends on it; later calls do nothing.

        Waits for calls of other threads to return.

        Raises:
            EngineError: called from within a call on the object, as by a signal handler.
        """
        with _guard:
            while users := self._native.all_users():
                if threading.get_ident() in users:
                    raise EngineError(
                        f"this {type(self).__name__} can't be closed from within a call on it: "
                        "close it after the call has returned"
                    )
                _guard.wait()
            self._native.close()

    def __enter__(self: _O) -> _O:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # NOTE: the constructor may have failed before there was a handle.
        if hasattr(self, "_native") and not sys.is_finalizing():
            self.close()


def _close_all() -> None:
    for owned in list(Owned._open):
        if not owned._native.all_users():  # a daemon thread is still computing: leave it be
            owned.close()


atexit.register(_close_all)
