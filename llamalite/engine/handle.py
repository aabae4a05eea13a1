"""The caller's end of a request: where its deltas arrive, whoever computes them.

Owns waiting, cancelling and putting an answer together. Doesn't know how tokens are made or over
which connection they come. Imports the standard library, `llamalite.errors` and its siblings.
"""

from __future__ import annotations

import collections
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from llamalite.engine.result import Delta, GenerationResult, Timings, Usage
from llamalite.errors import EngineError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_POLL_S = 0.1
"""Waiting without a limit can't be interrupted on Windows."""
_TURN_S = 0.005
"""Whoever computes may stop at any step; then another who waits must take over."""

_ids = itertools.count(1)


class Sink(Protocol):
    """Where an engine puts what a step brought; called by the engine thread, must not block."""

    def put(self, request_id: int, item: Any) -> None:
        """Take a Delta, an embedding result, or the exception that ended the request."""
        ...

    def flush(self) -> None:
        """A step is over, and all it brought has been put."""
        ...


class Inbox:
    """Deltas of one request on their way from one thread to another."""

    def __init__(self) -> None:
        self._items: collections.deque[Any] = collections.deque()
        self._changed = threading.Condition()

    def put(self, item: Any) -> None:
        """Add an item and wake who waits."""
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    def pop(self, timeout_s: float) -> Any:
        """Return the next item, or None after that many seconds."""
        with self._changed:
            if not self._items and timeout_s > 0:
                self._changed.wait(timeout_s)
            return self._items.popleft() if self._items else None


class _Handle:
    """A request under way, as its caller sees it; a Sink for itself alone.

    Args:
        pump: makes the engine compute a step in this thread and says whether it did; None = the
            engine has a thread or process of its own.

    Attributes:
        id: number of the request, unique in this process.
    """

    def __init__(self, pump: Callable[[], bool] | None = None) -> None:
        self.id = next(_ids)
        self._pump = pump
        self._inbox = Inbox()
        self._error: BaseException | None = None

    def put(self, request_id: int, item: Any) -> None:
        """Take what the engine brings; any thread."""
        self._inbox.put(item)

    def flush(self) -> None:
        """Do nothing: what was put has arrived."""

    def _wait(self, timeout_s: float | None) -> Any:
        """Return the next item, computing steps meanwhile if that is nobody else's part."""
        if self._error is not None:
            raise self._error
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        poll_s = _POLL_S if self._pump is None else _TURN_S
        while (item := self._inbox.pop(0)) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"no answer within {timeout_s:g} s")
            if self._pump is not None and self._pump():
                continue
            item = self._inbox.pop(poll_s)
            if item is not None:
                break
        if isinstance(item, BaseException):
            self._error = item
            raise item
        return item


class Embedding(_Handle):
    """A request for embeddings under way."""

    def result(self, timeout_s: float | None = None) -> npt.NDArray[np.float32]:
        """Wait for the embeddings, float32[n_texts, n_embd_out], each of length 1.

        Raises:
            TimeoutError: they didn't come within that many seconds.
            LlamaliteError: the request failed.
        """
        rows: npt.NDArray[np.float32] = self._wait(timeout_s)
        return rows


class Generation(_Handle, Iterator[Delta]):
    """Answers under way: iterate over their deltas, or wait for the results.

    Args:
        n: number of answers asked for.
        cancel: tells the engine to end it.
        pump: as for every request.
    """

    def __init__(
        self,
        n: int = 1,
        cancel: Callable[[int], None] | None = None,
        pump: Callable[[], bool] | None = None,
    ) -> None:
        super().__init__(pump)
        self.n = n
        self._cancel = cancel
        self._answers = [_Answer() for _ in range(n)]
        self._n_open = n

    def __next__(self) -> Delta:
        return self.next()

    def next(self, timeout_s: float | None = None) -> Delta:
        """Return the next delta.

        Raises:
            StopIteration: all answers have ended.
            TimeoutError: nothing came within that many seconds.
            LlamaliteError: the request failed.
        """
        if not self._n_open and self._error is None:
            raise StopIteration
        delta: Delta = self._wait(timeout_s)
        self._answers[delta.index].add(delta)
        if delta.finish_reason is not None:
            self._n_open -= 1
        return delta

    @property
    def done(self) -> bool:
        """Say whether all that was to come has been read."""
        return not self._n_open or self._error is not None

    def cancel(self) -> None:
        """End it; its answers then end with "cancelled" unless they had ended. Any thread."""
        if self._cancel is not None:
            self._cancel(self.id)

    def results(self) -> list[GenerationResult]:
        """Wait for all answers and return them, by index; raises as `next` does."""
        for _ in self:
            pass
        return self.so_far()

    def result(self) -> GenerationResult:
        """Wait for all answers and return the first."""
        return self.results()[0]

    def so_far(self) -> list[GenerationResult]:
        """Return what has been read until now; unfinished answers count as cancelled."""
        return [answer.result() for answer in self._answers]


class _Answer:
    """One answer, put together from its deltas."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._tokens: list[int] = []
        self._logprobs: list[Any] = []
        self._prompt_logprobs: Any = None
        self._last = Delta(finish_reason=None)

    def add(self, delta: Delta) -> None:
        self._texts.append(delta.text)
        self._tokens += delta.tokens
        self._logprobs += delta.logprobs
        if delta.prompt_logprobs is not None:
            self._prompt_logprobs = delta.prompt_logprobs
        if self._last.finish_reason is not None:
            raise EngineError(f"answer {delta.index} went on after its end")
        self._last = delta

    def result(self) -> GenerationResult:
        last = self._last
        return GenerationResult(
            text="".join(self._texts),
            tokens=list(self._tokens),
            finish_reason=last.finish_reason or "cancelled",
            usage=last.usage or Usage(0, len(self._tokens)),
            timings=last.timings or Timings(),
            logprobs=tuple(self._logprobs),
            prompt_logprobs=self._prompt_logprobs,
            stop=last.stop,
        )
