"""How pulls are shown to a person: bars on a terminal, a line at each tenth elsewhere.

Owns speed, time left and their wording. Doesn't know what is fetched. Imports the standard library
and `terminal`; rich inside functions, since importing it takes a tenth of a second.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from llamalite.cli import terminal
from llamalite.libs.transfer.wording import size_text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from llamalite.models.pull import Report

_WINDOW_S = 10.0
_SETTLED_S = 0.5  # a speed of less time than that says nothing, and so does a line


@contextmanager
def shown_pull(quiet: bool = False) -> Iterator[Report]:
    """Lend a Report that shows pulls on stderr until the block ends; nothing at all if `quiet`."""
    if quiet:
        yield Silence()
    elif terminal.is_terminal() and os.environ.get("TERM") != "dumb":
        with ExitStack() as stack:
            yield Bars(stack)
    else:
        yield Lines(terminal.say)


class Silence:
    """A Report that shows nothing."""

    def expect(self, files: Sequence[tuple[str, int | None]]) -> None:
        """Show nothing."""

    def at(self, file: str, received: int) -> None:
        """Show nothing."""

    def say(self, line: str) -> None:
        """Show nothing."""


class Meter:
    """Counts what has arrived and how fast, over all files.

    Attributes:
        received: bytes that are here, those of earlier pulls too.
        total: bytes of all files; None while a size is unknown.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sizes: dict[str, int | None] = {}
        self._first: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._samples: deque[tuple[float, int]] = deque()

    def expect(self, files: Sequence[tuple[str, int | None]]) -> None:
        """Add files, or sizes that were not known."""
        self._sizes.update(files)

    def at(self, file: str, received: int) -> None:
        """Take how far a file is."""
        self._first.setdefault(file, received)
        self._last[file] = received
        now = self._clock()
        # What an earlier pull left says nothing about the speed of this one.
        self._samples.append((now, self.received - sum(self._first.values())))
        while now - self._samples[0][0] > _WINDOW_S:
            self._samples.popleft()

    def size(self, file: str) -> int | None:
        """Return a file's size, or None."""
        return self._sizes.get(file)

    @property
    def n_files(self) -> int:
        """How many files there are."""
        return len(self._sizes)

    @property
    def received(self) -> int:
        """Bytes that are here."""
        return sum(self._last.values())

    @property
    def total(self) -> int | None:
        """Bytes of all files together, if each is known."""
        sizes = [size for size in self._sizes.values() if size is not None]
        return sum(sizes) if sizes and len(sizes) == len(self._sizes) else None

    @property
    def bytes_per_s(self) -> float | None:
        """The speed of the last seconds; None too early to tell."""
        if not self._samples:
            return None
        (since, before), (now, after) = self._samples[0], self._samples[-1]
        return (after - before) / (now - since) if now - since >= _SETTLED_S else None

    def pace(self, left: int | None) -> str:
        """Return speed and the time that `left` bytes take, as far as they are known."""
        speed = self.bytes_per_s
        if not speed:
            return ""
        rest = "" if left is None else f", {duration(left / speed)} left"
        return f"{size_text(round(speed))}/s{rest}"


class Bars:
    """A Report that draws a bar for the file that is coming, and one for all of several."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._meter = Meter()
        self._display: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def expect(self, files: Sequence[tuple[str, int | None]]) -> None:
        """Take the sizes."""
        self._meter.expect(files)
        for file, _ in files:
            self._update(file)

    def at(self, file: str, received: int) -> None:
        """Move the bars."""
        self._meter.at(file, received)
        size = self._meter.size(file)
        if self._display is None and received != size:
            self._display = self._start()
        if self._display is not None:
            if file not in self._tasks and received != size:
                name = terminal.one_line(file.rpartition("/")[2])
                self._tasks[file] = self._display.add_task(name, total=size, pace="")
            self._update(file, received)

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        if self._display is None:
            terminal.say(line)
        else:
            self._display.console.print(
                terminal.one_line(line), style="dim", markup=False, highlight=False, soft_wrap=True
            )

    def _start(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[pace]}", markup=False),
        )
        display = Progress(
            *columns,
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,  # it may be a file
            redirect_stderr=False,
        )
        return self._stack.enter_context(display)

    def _update(self, file: str, received: int | None = None) -> None:
        if self._display is None:
            return
        total = self._meter.total
        if self._meter.n_files > 1 and "" not in self._tasks:
            self._tasks[""] = self._display.add_task("all", total=total, pace="")
        for name, done, size in (
            (file, received, self._meter.size(file)),
            ("", self._meter.received, total),
        ):
            if name in self._tasks:
                left = None if size is None or done is None else size - done
                pace = self._meter.pace(left)
                # A file that is here makes room for the next.
                visible = name == "" or left != 0
                self._display.update(
                    self._tasks[name], completed=done, total=size, pace=pace, visible=visible
                )


class Lines:
    """A Report that says a line at each tenth of the whole, but none for what takes no time."""

    def __init__(
        self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.say = say
        self._meter = Meter(clock)
        self._clock = clock
        self._started: float | None = None
        self._tenths = 0

    def expect(self, files: Sequence[tuple[str, int | None]]) -> None:
        """Take the sizes."""
        self._meter.expect(files)

    def at(self, file: str, received: int) -> None:
        """Say how far it is, if a tenth further than last time."""
        self._meter.at(file, received)
        total, now = self._meter.total, self._clock()
        tenths = 10 * self._meter.received // total if total else 0
        if self._started is None:
            self._started, self._tenths = now, tenths
        elif total and tenths > self._tenths and now - self._started > _SETTLED_S:
            self._tenths = tenths
            pace = self._meter.pace(total - self._meter.received)
            name = file.rpartition("/")[2]
            self.say(
                f"{name}: {10 * tenths} % of {size_text(total)}"
                + (f" for all {self._meter.n_files} files" if self._meter.n_files > 1 else "")
                + (f", {pace}" if pace else "")
            )


def duration(seconds: float) -> str:
    """Return a length of time for people, in hours and minutes or less."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 60} min {whole % 60:02} s" if whole >= 60 else f"{whole} s"
