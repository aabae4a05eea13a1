"""What goes where: answers to stdout as UTF-8, everything else to stderr, one line at a time.

Imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys

_DIM = "2"
_RED = "31"


def prepare_output() -> None:
    """Make stdout write UTF-8 with plain line ends, whatever the locale."""
    for stream, settings in (
        (sys.stdout, {"encoding": "utf-8", "errors": "replace", "newline": "\n"}),
        (sys.stderr, {"errors": "backslashreplace"}),
    ):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(**settings)


def one_line(text: str) -> str:
    """Return text without line ends and control characters, so that it can't drive a terminal."""
    joined = " ".join(text.split())
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in joined)


def say(line: str) -> None:
    """Print a notice on stderr."""
    _write_line(_paint(one_line(line), _DIM))


def be_silent(line: str) -> None:
    """Print nothing: what `--quiet` puts in the place of `say`."""


def complain(message: str) -> None:
    """Print an error on stderr as `llamalite: MESSAGE`."""
    _write_line(f"{_paint('llamalite:', _RED)} {one_line(message)}")


def table(rows: list[tuple[str, str]]) -> None:
    """Print names and values on stderr, in two columns."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        _write_line(f"{_paint(name.ljust(width), _DIM)}  {one_line(value)}")


def write(text: str) -> None:
    """Write a piece of the answer to stdout, at once."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "stdout is closed")
    sys.stdout.write(text)
    sys.stdout.flush()


def abandon_output(error: BaseException) -> None:
    """Point stdout at nothing after it failed, so that Python's exit doesn't fail again."""
    if isinstance(error, KeyboardInterrupt) or sys.stdout is None:
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        return
    with contextlib.suppress(OSError, ValueError):
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, sys.stdout.fileno())
        os.close(sink)


def is_terminal() -> bool:
    """Say whether stderr is a terminal."""
    return sys.stderr is not None and sys.stderr.isatty()


def show_on_stderr(text: str) -> None:
    """Print lines on stderr as they are."""
    _write_line(text.rstrip("\n"))


def _write_line(line: str) -> None:
    # A closed stderr is no reason to fail: the exit code still tells.
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()


def _paint(text: str, code: str) -> str:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain or not is_terminal() else f"\x1b[{code}m{text}\x1b[0m"
