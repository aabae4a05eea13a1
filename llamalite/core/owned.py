"""Ownership of native handles: closed once, in the right order, never while Python shuts down.

Imports the standard library and `llamalite.errors`.
"""

from __future__ import annotations

import atexit
import sys
import threading
import weakref
from types import TracebackType
from typing import ClassVar, TypeVar

from llamalite.errors import EngineClosed

_O = TypeVar("_O", bound="Owned")


class Owned:
    """Base of objects that own a native handle.

    An object closes its children before itself, and everything still open is closed when the
    interpreter begins to exit, because GPU backends complain about what is left.
    """

    _roots: ClassVar[weakref.WeakSet[Owned]] = weakref.WeakSet()
    _guard: ClassVar[threading.RLock] = threading.RLock()

    def __init__(self, handle: int, parent: Owned | None = None) -> None:
        self._handle: int | None = handle
        self._children: weakref.WeakSet[Owned] = weakref.WeakSet()
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

    def close(self) -> None:
        """Free the native object and all that depends on it; later calls do nothing."""
        with Owned._guard:
            handle, self._handle = self._handle, None
            if handle is None:
                return
            for child in list(self._children):
                child.close()
            self._free(handle)

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
        owned.close()


atexit.register(_close_all)
