"""How a pull is watched: which files come, how far each is, what is said meanwhile.

Owns what a watcher is told, that the numbers it gets never fall, though a transfer may start again,
and that what it raises ends the pull and is taken for nothing else. Doesn't know how they are
shown. May import `libs.transfer` and `errors`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

from llamalite.errors import InvalidParameter
from llamalite.libs.transfer.progress import Progress, Say, show_progress

_P = ParamSpec("_P")
_T = TypeVar("_T")

Callback = Callable[[int, "int | None"], Any]


class Report(Protocol):
    """Takes how far a pull is."""

    def expect(self, files: Sequence[tuple[str, int | None]]) -> None:
        """Take files that will come, with their sizes; again where a size was not known before."""

    def at(self, file: str, received: int) -> None:
        """Take how many of a file's bytes are here; never fewer than last time.

        Is called now and then while nothing comes, too; what it raises ends the pull.
        """

    def say(self, line: str) -> None:
        """Take a line for the user."""


class CallbackReport:
    """A Report that calls `callback(downloaded, total)`: bytes of all files together.

    `downloaded` never falls; `total` is None until every size is known.

    Raises:
        InvalidParameter: from `at`: the callback is asynchronous.
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
        call_back(self._callback, sum(self._received.values()), total)

    def say(self, line: str) -> None:
        """Hand the line on, if there is somewhere."""
        if self._say is not None:
            self._say(line)


class CalledOff(BaseException):
    """A watcher raised an exception: nobody between it and the pull may take that for their own.

    Attributes:
        reason: what it raised.
    """

    def __init__(self, reason: Exception) -> None:
        self.reason = reason
        super().__init__(str(reason))


def as_raised(pulling: Callable[_P, Iterator[_T]]) -> Callable[_P, Iterator[_T]]:
    """Let a generator raise what a watcher raised, as that itself."""

    @wraps(pulling)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> Iterator[_T]:
        try:
            yield from pulling(*args, **kwargs)
        except CalledOff as called_off:
            raise called_off.reason from None

    return run


@contextmanager
def _calling() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise CalledOff(error) from error


def call_back(callback: Callback, downloaded: int, total: int | None) -> None:
    """Call a callback.

    Raises:
        InvalidParameter: it is asynchronous, and would never be awaited.
    """
    answer = callback(downloaded, total)
    if inspect.iscoroutine(answer):
        answer.close()
        raise InvalidParameter(
            "the progress callback is an async function, which nobody would await: give a plain "
            "one, which may create a task",
            param="progress_callback",
        )


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
            with _calling():
                say(line)

    def expect(self, files: Sequence[tuple[str, int | None]]) -> None:
        """Announce files."""
        if self._report is not None:
            with _calling():
                self._report.expect(files)

    def at(self, file: str, received: int) -> None:
        """Pass on how far a file is, or has been."""
        if self._report is not None:
            self._furthest[file] = max(received, self._furthest.get(file, 0))
            with _calling():
                self._report.at(file, self._furthest[file])

    @contextmanager
    def transfer(self, file: str, n_bytes: int | None) -> Iterator[Progress]:
        """Lend what one file's transfer tells its progress to."""
        if self._report is not None:
            yield _FileProgress(self, file)
        else:
            say = None if self._say is None else self._pass_on
            with show_progress(file.rpartition("/")[2], n_bytes, say) as progress:
                yield progress

    def _pass_on(self, line: str) -> None:
        if self._say is not None:
            with _calling():
                self._say(line)


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
