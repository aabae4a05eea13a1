"""Answers on their way to a client, and the notice that the client is gone.

Owns what a WSGI server is given to write: a body that comes in pieces, with a comment line while
nothing else does, so that a hang-up is noticed. Imports falcon, msgspec, the engine's handles and
its siblings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from threading import Condition
from typing import Any

import msgspec

from llamalite.engine.process.client import EngineClient
from llamalite.engine.request import GenerationRequest
from llamalite.engine.result import Delta
from llamalite.server.problems import problem_of

PING_S = 1.0
_LOOK_S = 0.25
"""How often a client is looked for that nothing is written to."""

_LONG_S = 3600.0

_encoder = msgspec.json.Encoder()
DONE = b"data: [DONE]\n\n"
COMMENT = b": still computing\n\n"


def event(item: Any) -> bytes:
    """Return an SSE event of one JSON object."""
    return b"data: " + _encoder.encode(item) + b"\n\n"


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class Answers:
    """The deltas of one HTTP request, read by its thread; answers of all prompts are numbered on.

    Args:
        engine: computes them.
        requests: what to generate, one for each prompt.
        is_gone: says whether the client has hung up, as far as the WSGI server can tell.

    Attributes:
        n: number of answers.

    Raises:
        LlamaliteError: the engine takes them not.
    """

    def __init__(
        self,
        engine: EngineClient,
        requests: Sequence[GenerationRequest],
        is_gone: Callable[[], bool] | None = None,
    ) -> None:
        self._engine, self._is_gone = engine, is_gone
        self._items: deque[Any] = deque()
        self._fresh: list[Any] = []
        self._changed = Condition()
        self.n = self._n_open = sum(request.n for request in requests)
        self._ids: list[int] = []
        first = 0
        try:
            for request in requests:
                self._ids.append(engine.submit(request, _Part(self, first)).id)
                first += request.n
        except BaseException:
            self.cancel()
            raise

    def put(self, item: Any) -> None:
        """Take what a step brought; it is read once the step is over."""
        self._fresh.append(item)

    def flush(self) -> None:
        """Wake the reader, once for a step."""
        fresh, self._fresh = self._fresh, []
        if not fresh:
            return
        with self._changed:
            self._items.extend(fresh)
            self._changed.notify()

    def take(self, timeout_s: float = PING_S) -> list[Delta]:
        """Return all deltas there are, waiting for one; [] after so many seconds, or at the end.

        Raises:
            ClientGone: the client hung up.
            LlamaliteError: the request failed.
        """
        waited_s = 0.0
        with self._changed:
            while not self._items and self._n_open and waited_s < timeout_s:
                if self._is_gone is not None and self._is_gone():
                    raise ClientGone
                self._changed.wait(_LOOK_S)
                waited_s += _LOOK_S
            items = list(self._items)
            self._items.clear()
        if self._is_gone is not None and self._is_gone():
            raise ClientGone
        deltas: list[Delta] = []
        for item in items:
            if isinstance(item, BaseException):
                self._n_open = 0
                raise item
            self._n_open -= item.finish_reason is not None
            deltas.append(item)
        return deltas

    @property
    def is_open(self) -> bool:
        """Say whether more will come."""
        return self._n_open > 0

    def cancel(self) -> None:
        """End the request if it hasn't ended."""
        if self._n_open:
            for number in self._ids:
                self._engine.cancel(number)


class _Part:
    """One prompt's part of the answers: a Sink."""

    def __init__(self, answers: Answers, first: int) -> None:
        self._answers, self._first = answers, first
        self.flush = answers.flush

    def put(self, request_id: int, item: Any) -> None:
        if self._first and isinstance(item, Delta):
            item = replace(item, index=item.index + self._first)
        self._answers.put(item)


class EventStream:
    """The body of a streamed answer; a WSGI server iterates over it and closes it.

    Args:
        first: what came while errors could still be statuses.
        answers: the rest.
        write: makes bytes of some deltas.
        end: makes the bytes that end the stream.
        close: is called once, however it ends.
        ping_s: seconds without events after which a comment is written; below 0 = never.
    """

    def __init__(
        self,
        first: list[Delta],
        answers: Answers,
        write: Callable[[list[Delta]], bytes],
        end: Callable[[], bytes],
        close: Callable[[], None],
        ping_s: float = PING_S,
    ) -> None:
        self._answers, self._close, self._ping_s = answers, close, ping_s
        self._pieces = self._write(first, write, end)
        self._is_closed = False

    def _write(
        self, first: list[Delta], write: Callable[[list[Delta]], bytes], end: Callable[[], bytes]
    ) -> Iterator[bytes]:
        deltas = first
        try:
            if first_piece := write(deltas):
                yield first_piece
            while self._answers.is_open:
                deltas = self._answers.take(self._ping_s if self._ping_s > 0 else _LONG_S)
                if deltas:
                    if piece := write(deltas):  # an empty one ends the body in some servers
                        yield piece
                elif self._ping_s > 0:
                    yield COMMENT
            if last := end():
                yield last
        except ClientGone:
            return
        except Exception as error:  # the status is sent: the client hears of it here
            yield event(problem_of(error).body())

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        """Cancel what isn't over; the WSGI server calls this, also when a client hung up."""
        if not self._is_closed:
            self._is_closed = True
            try:
                self._answers.cancel()
            finally:
                self._close()
