"""How a transfer is shown to a person: a bar on a terminal, lines elsewhere.

Owns the showing alone. Imports the standard library and `wording`; the terminal's inside functions.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from llamalite.libs.transfer.wording import printable, size_text

Say = Callable[[str], None]


def say_nothing(line: str) -> None:
    """Take a line and show it to nobody."""


def say_on_stderr(line: str) -> None:
    """Print a line for a person, where it can't get into a program's output; never fails."""
    with contextlib.suppress(OSError, ValueError):  # closed, or on a full disk
        if sys.stderr is not None:
            print(printable(line), file=sys.stderr, flush=True)


def _is_terminal() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except (OSError, ValueError):
        return False


class Progress(Protocol):
    """How one transfer is shown."""

    def expect(self, total: int) -> None:
        """Take the server's word for the size, where nobody has said it before."""

    def at(self, received: int) -> None:
        """Show how far the transfer is."""

    def say(self, line: str) -> None:
        """Show a line beside it."""


@contextlib.contextmanager
def show_progress(name: str, n_bytes: int | None, say: Say | None) -> Iterator[Progress]:
    """Show a transfer as a bar on a terminal, or else as a line per 10 %, until the block ends."""
    if say is None and _is_terminal():
        try:
            import rich.progress  # noqa: F401
        except ImportError:
            pass  # a bare checkout has lines instead
        else:
            with _bar(name, n_bytes) as bar:
                yield bar
            return
    yield _Lines(name, n_bytes, say or say_on_stderr)


@contextlib.contextmanager
def _bar(name: str, n_bytes: int | None) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Display

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Display(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task(name, total=n_bytes)

        class Bar:
            def expect(self, total: int) -> None:
                display.update(task, total=total)

            def at(self, received: int) -> None:
                display.update(task, completed=received)

            def say(self, line: str) -> None:
                display.console.print(line, markup=False, highlight=False, soft_wrap=True)

        yield Bar()


class _Lines:
    """A line at each tenth, but none for a transfer that takes no time."""

    def __init__(self, name: str, n_bytes: int | None, say: Say) -> None:
        self.name, self.n_bytes, self.say = name, n_bytes, say
        self.tenths: int | None = None
        self.started = time.monotonic()

    def expect(self, total: int) -> None:
        """Take the size of what is fetched."""
        self.n_bytes = total

    def at(self, received: int) -> None:
        """Say how far it is, if a tenth further than last time."""
        if not self.n_bytes:
            return
        tenths = 10 * received // self.n_bytes
        if self.tenths is None or tenths < self.tenths:
            self.tenths = tenths  # where it starts, anew perhaps
        elif tenths > self.tenths and time.monotonic() - self.started > 0.5:
            self.tenths = tenths
            self.say(f"{self.name}: {10 * tenths} % of {size_text(self.n_bytes)}")
