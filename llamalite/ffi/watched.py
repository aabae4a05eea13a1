"""Long native calls that Ctrl-C can stop.

Python runs signal handlers in the main thread, between two of its own instructions: never during a
native call, and where a ctypes callback would give it the chance, an exception would get lost. So
the main thread waits while another one makes the call, and a callback of that other thread tells
the native code to stop.

Imports the standard library.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")
_POLL_S = 0.1
"""Waiting without a limit can't be interrupted on Windows."""


def call_watched(
    function: Callable[[], _T],
    stop: threading.Event,
    discard: Callable[[_T], object] | None = None,
) -> _T:
    """Call a function so that exceptions from signal handlers can end it.

    Args:
        function: makes the native call; its callback must look at `stop`.
        stop: set when the call is to end early.
        discard: frees what the function returned when nobody is there to take it.

    Raises:
        BaseException: whatever a signal handler (KeyboardInterrupt) or the function raised.
    """
    if threading.current_thread() is not threading.main_thread():
        return function()
    returned: list[_T] = []
    raised: list[BaseException] = []
    done = threading.Event()  # NOTE: an interrupted Thread.join may take a live thread for dead

    def work() -> None:
        try:
            returned.append(function())
        except BaseException as error:
            raised.append(error)
        finally:
            done.set()

    threading.Thread(target=work, name="llamalite-native", daemon=True).start()
    try:
        while not done.wait(_POLL_S):
            pass
    except BaseException:
        stop.set()
        while not done.is_set():  # the native call still uses what the caller would free
            with contextlib.suppress(BaseException):
                done.wait(_POLL_S)
        if discard is not None and returned and returned[0]:
            discard(returned[0])
        raise
    if raised:
        raise raised[0]
    return returned[0]


def watched(
    function: Callable[..., _T], discard: Callable[[_T], object] | None
) -> Callable[..., _T]:
    """Wrap a function that can't be stopped: Ctrl-C is raised when it has returned."""

    def call(*arguments: Any) -> _T:
        return call_watched(lambda: function(*arguments), threading.Event(), discard)

    return call
