"""libllama's own log lines, brought into Python's `logging` under "llamalite.native".

Quiet unless a handler is set: `LLAMALITE_LOG=debug|info|warning|error`, or the program's own
logging set-up. The last lines are kept, because libllama reports failures as NULL and puts the
reason into its log.

Imports the standard library, `llamalite.errors` and `structs`.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import logging
import os
from typing import Any

from llamalite.errors import InvalidParameter
from llamalite.ffi.structs import LogCallback, LogLevel

logger = logging.getLogger("llamalite.native")
logging.getLogger("llamalite").addHandler(logging.NullHandler())

_LEVELS = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARN: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}
_ANSWERED = "failed to find a memory slot"
"""A warning of `llama_decode` that its return value says too: its caller acts on that, at every
step of an engine short of cells, and a log that warned each time would only grow."""
_KEPT_LINES = 60
_recent: collections.deque[tuple[int, str]] = collections.deque(maxlen=_KEPT_LINES)
_partial: list[str] = []
_level = logging.INFO


def configure(level: str | None = None) -> None:
    """Send llamalite's log to stderr from a level on.

    Args:
        level: debug, info, warning or error; None reads `LLAMALITE_LOG` and does nothing if unset.

    Raises:
        InvalidParameter: no such level.
    """
    name = level or os.environ.get("LLAMALITE_LOG", "")
    if not name:
        return
    number = getattr(logging, name.upper(), None)
    if not isinstance(number, int):
        raise InvalidParameter(
            f"log level {name!r} is none of debug, info, warning, error", param="LLAMALITE_LOG"
        )
    top = logging.getLogger("llamalite")
    top.setLevel(number)
    if not any(isinstance(handler, logging.StreamHandler) for handler in top.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
        top.addHandler(handler)


def recent_errors(limit: int = 3) -> str:
    """Return the last native error and warning lines as one line, newest last; may be empty."""
    lines = [text for level, text in _recent if level >= logging.WARNING]
    return "; ".join(dict.fromkeys(lines[-limit:]))


def forget() -> None:
    """Drop kept lines, so that `recent_errors` speaks only of what follows."""
    _recent.clear()


def _receive(level: int, text: bytes | None, _user: Any) -> None:
    # Called by native code, from any of its threads: nothing may escape.
    with contextlib.suppress(Exception):
        _accept_line(level, (text or b"").decode("utf-8", "replace"))


def _accept_line(level: int, text: str) -> None:
    global _level
    if level != LogLevel.CONT:
        _level = _LEVELS.get(LogLevel(level), logging.INFO)
    _partial.append(text)
    if not text.endswith("\n"):
        return
    line = " ".join("".join(_partial).split())
    _partial.clear()
    if line.strip("."):
        _recent.append((_level, line))
        logger.log(logging.DEBUG if _ANSWERED in line else _level, "%s", line)


callback = LogCallback(_receive)
"""Kept alive here for as long as the process lives."""


def silence(llama_log_set: Any, harmless: Any) -> None:
    """Point the native log at a C function that does nothing.

    Static destructors log after the interpreter is gone, and a Python callback would crash then;
    NULL would print to stderr. `harmless` is an exported function without arguments or effects.
    """
    llama_log_set(ctypes.cast(harmless, ctypes.c_void_p), None)
