"""Ownership of native handles: closed once, in the right order, never while Python shuts down.

Imports the standard library and `llamalite.errors`.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
import threading
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import ClassVar, TypeVar

from llamalite.errors import EngineClosed, EngineError

_O = TypeVar("_O", bound="Owned")


class Owned:
    """Base of objects that own a native handle.

    An object closes its children before itself, and everything still open is closed when the
    interpreter begins to exit, because GPU backends complain about what is left.
    """

    _roots: ClassVar[weakref.WeakSet[Owned]] = weakref.WeakSet()
    _guard: ClassVar[threading.Condition] = threading.Condition(threading.RLock())

    def __init__(self, handle: int, parent: Owned | None = None) -> None:
        self._handle: int | None = handle
        self._children: weakref.WeakSet[Owned] = weakref.WeakSet()
        self._users: list[int] = []
        with Owned._guard:
            (Owned._roots if parent is None else parent._children).add(self)

    @property
    def handle(self) -> int:
        """The native pointer.

        Raises:
            EngineClosed: it was closed before.
        """
        if self._handle is None:
            raise EngineClosed(f"this {type(self).__name__} is closed: open a new one")
        return self._handle

    @property
    def closed(self) -> bool:
        """Say whether the native object is gone."""
        return self._handle is None

    @contextlib.contextmanager
    def in_use(self) -> Iterator[int]:
        """Give the native pointer, and keep other threads from closing it meanwhile.

        Raises:
            EngineClosed: it was closed before.
        """
        user = threading.get_ident()
        with Owned._guard:
            handle = self.handle
            self._users.append(user)
        try:
            yield handle
        finally:
            with Owned._guard:
                self._users.remove(user)
                Owned._guard.notify_all()

    def close(self) -> None:
        """Free the native object and all that depends on it; later calls do nothing.

        Waits for calls of other threads to return.

        Raises:
            EngineError: called from within a call on the object, as by a signal handler.
        """
        with Owned._guard:
            while users := self._all_users():
                if threading.get_ident() in users:
                    raise EngineError(
                        f"this {type(self).__name__} can't be closed from within a call on it: "
                        "close it after the call has returned"
                    )
                Owned._guard.wait()
            handle, self._handle = self._handle, None
            if handle is None:
                return
            for child in list(self._children):
                child.close()
            self._free(handle)

    def _all_users(self) -> list[int]:
        return [*self._users, *(user for child in self._children for user in child._all_users())]

    def _free(self, handle: int) -> None:
        raise NotImplementedError

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
        if getattr(self, "_handle", None) is not None and not sys.is_finalizing():
            self.close()


def _close_all() -> None:
    for owned in list(Owned._roots):
        if not owned._all_users():  # a daemon thread is still computing: leave it be
            owned.close()


atexit.register(_close_all)
