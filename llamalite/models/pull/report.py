"""How a pull is watched: which files come, how far each is, what is said meanwhile.

Owns what a watcher is told, and that the numbers it gets never fall, though a transfer may start
again. Doesn't know how they are shown. May import `libs.transfer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from llamalite.libs.transfer.progress import Progress, Say, show_progress

Callback = Callable[[int, "int | None"], None]


class Report(Protocol):
    """Takes how far a pull is."""

    def expect(self, files: Sequence[tuple[str, int | None]]) -> None:
        """Take files that will come, with their sizes; again where a size was not known before."""

    def at(self, file: str, received: int) -> None:
        """Take how many of a file's bytes are here; never fewer than last time."""

    def say(self, line: str) -> None:
        """Take a line for the user."""


class CallbackReport:
    """A Report that calls `callback(downloaded, total)`: bytes of all files together.

    `downloaded` never falls; `total` is None until every size is known.
    """

    def __init__(self, callback: Callback, say: Say | None = None) -> None:
        self._callback = callback
        self._say = say
        self._sizes: dict[str, int | None] = {}
        self._received: dict[str, int] = {}

    def expect(self, files: Sequence[tuple[str, int | None]]) -> None:
        """Add to the total."""
        self._sizes.update(files)

    def at(self, file: str, received: int) -> None:
        """Call back."""
        self._received[file] = received
        sizes = [size for size in self._sizes.values() if size is not None]
        total = sum(sizes) if len(sizes) == len(self._sizes) else None
        self._callback(sum(self._received.values()), total)

    def say(self, line: str) -> None:
        """Hand the line on, if there is somewhere."""
        if self._say is not None:
            self._say(line)


class Watch:
    """What the parts of a pull tell, on its way to a Report or, without one, to stderr.

    Attributes:
        notes: every line that was said, for who comes later.
    """

    def __init__(self, say: Say | None, report: Report | None) -> None:
        self.notes: list[str] = []
        self._say, self._report = say, report
        self._furthest: dict[str, int] = {}

    def say(self, line: str) -> None:
        """Say a line to the user, and keep it."""
        self.notes.append(line)
        # A report may have bars in the way of what others print.
        say = self._say if self._report is None else self._report.say
        if say is not None:
            say(line)

    def expect(self, files: Sequence[tuple[str, int | None]]) -> None:
        """Announce files."""
        if self._report is not None:
            self._report.expect(files)

    def at(self, file: str, received: int) -> None:
        """Pass on how far a file is, if it is further than before."""
        if self._report is not None and received > self._furthest.get(file, -1):
            self._furthest[file] = received
            self._report.at(file, received)

    @contextmanager
    def transfer(self, file: str, n_bytes: int | None) -> Iterator[Progress]:
        """Lend what one file's transfer tells its progress to."""
        if self._report is not None:
            yield _FileProgress(self, file)
        else:
            with show_progress(file.rpartition("/")[2], n_bytes, self._say) as progress:
                yield progress


class _FileProgress:
    """One file's part in a Watch."""

    def __init__(self, watch: Watch, file: str) -> None:
        self._watch, self._file = watch, file

    def expect(self, total: int) -> None:
        self._watch.expect([(self._file, total)])

    def at(self, received: int) -> None:
        self._watch.at(self._file, received)

    def say(self, line: str) -> None:
        self._watch.say(line)
