"""One client of an engine's server: its requests, and what they bring.

What a step brought goes out as one message. A client that doesn't read is cut off, so that it holds
neither memory nor the engine's thread. Doesn't know how it came in. Imports the standard library,
numpy, `llamalite.errors` and its siblings.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from llamalite.engine.facts import EngineFacts
from llamalite.engine.handle import Sink
from llamalite.engine.process.crossing import (
    embedding_request_of,
    problem_of,
    request_of,
    rows_of,
)
from llamalite.engine.process.sockets import Outgoing, hang_up
from llamalite.engine.process.wire import (
    Accepted,
    AskStats,
    Cancel,
    Embed,
    Farewell,
    Messages,
    Problem,
    Refused,
    Rows,
    Stats,
    Step,
    Submit,
    ToEngine,
    Welcome,
    frame,
)
from llamalite.engine.request import EmbeddingRequest, GenerationRequest
from llamalite.engine.result import Delta
from llamalite.engine.stats import EngineStats
from llamalite.errors import EngineError, InvalidParameter, LlamaliteError, QueueFull

_log = logging.getLogger("llamalite.engine")
_MOST_REQUESTS = 10_000


class Handle(Protocol):
    """A request the engine has taken."""

    id: int


class ServedEngine(Protocol):
    """What a server needs of an engine; any thread."""

    @property
    def facts(self) -> EngineFacts:
        """What was loaded."""
        ...

    def submit(self, request: GenerationRequest, sink: Sink | None = None) -> Handle:
        """Take a request, or raise at once."""
        ...

    def embed(self, request: EmbeddingRequest, sink: Sink | None = None) -> Handle:
        """Take texts to embed, or raise at once."""
        ...

    def cancel(self, request_id: int) -> None:
        """End a request."""
        ...

    def stats(self) -> EngineStats:
        """Say what it has done."""
        ...


class Connection:
    """One client.

    Args:
        engine: serves it.
        guest: the client's socket; closed by others.
        compilers: threads for what takes long.
        most_bytes: what may wait for a client that reads slowly.
    """

    def __init__(
        self,
        engine: ServedEngine,
        guest: socket.socket,
        compilers: ThreadPoolExecutor,
        most_bytes: int,
    ) -> None:
        self._engine, self._guest, self._compilers = engine, guest, compilers
        self._outgoing = Outgoing(guest, most_bytes)
        self._lock = threading.Lock()
        self._requests: dict[int, _RequestSink] = {}
        self._step = _new_step()
        self._is_over = False

    def hang_up(self) -> None:
        """End it."""
        hang_up(self._guest)

    def run(self, facts: EngineFacts) -> None:
        """Welcome it and serve it until it leaves."""
        try:
            self._outgoing.send(frame(Welcome(facts)))
            with self._guest.makefile("rb") as stream, contextlib.suppress(ConnectionError):
                messages = Messages(stream, ToEngine)
                while (message := messages.read()) is not None:
                    self._take(message)
        finally:
            self.forget_all()
            self._outgoing.close()

    def _take(self, message: Any) -> None:
        if isinstance(message, Cancel):
            if (sink := self._requests.get(message.id)) is not None:
                sink.cancel()
        elif isinstance(message, AskStats):
            self._send(Stats(message.id, self._engine.stats()))
        elif len(self._requests) >= _MOST_REQUESTS:
            error = QueueFull(f"{_MOST_REQUESTS} requests of this program are waiting: try later")
            self._send(Refused(message.id, problem_of(error)))
        else:
            sink = self._requests[message.id] = _RequestSink(self, self._engine, message.id)
            if _is_slow(message):
                # Compiling it may take long, and whoever asks for something else must not wait.
                self._compilers.submit(self._begin, sink, message)
            else:
                self._begin(sink, message)

    def _begin(self, sink: _RequestSink, message: Submit | Embed) -> None:
        try:
            if isinstance(message, Submit):
                request = request_of(message)
                sink.n_open = request.n
                handle = self._engine.submit(request, sink)
            else:
                handle = self._engine.embed(embedding_request_of(message), sink)
        except Exception as error:
            if not isinstance(error, LlamaliteError):
                _log.exception("a request failed within the engine")
            self.done(message.id)
            self._send(Refused(message.id, problem_of(error)))
            return
        sink.began(handle.id)
        self._send(Accepted(message.id))

    def _send(self, message: Any) -> None:
        self._send_frame(frame(message))

    def _send_frame(self, content: bytes) -> None:
        if not self._outgoing.send(content):
            self._cut_off()

    def collect(self, number: int, item: Any) -> None:
        """Keep what a request brought until the step is over."""
        with self._lock:
            deltas, problems, embeddings = self._step
            if isinstance(item, Delta):
                deltas.append((number, item))
            elif isinstance(item, BaseException):
                problems.append((number, problem_of(item)))
            elif isinstance(item, np.ndarray):
                embeddings.append((number, rows_of(item)))

    def flush(self) -> None:
        """Send what was collected; raises nothing, as the thread is the engine's."""
        with self._lock:
            step, self._step = self._step, _new_step()
        if not any(step) or self._is_over:
            return
        try:
            content = frame(Step(*step))
        except InvalidParameter:
            self._send_each(step)
        else:
            self._send_frame(content)

    def _send_each(self, step: _StepParts) -> None:
        """Send a step that is too long one by one; what is too long by itself fails."""
        deltas, problems, embeddings = step
        parts = [
            *((number, Step(deltas=[(number, delta)])) for number, delta in deltas),
            *((number, Step(problems=[(number, problem)])) for number, problem in problems),
            *((number, Step(embeddings=[(number, rows)])) for number, rows in embeddings),
        ]
        for number, part in parts:
            try:
                content = frame(part)
            except InvalidParameter as error:
                content = frame(Step(problems=[(number, problem_of(error))]))
                if (sink := self._requests.get(number)) is not None:
                    self._later(sink.cancel)
            self._send_frame(content)

    def done(self, number: int) -> None:
        """Forget a request that has ended."""
        self._requests.pop(number, None)

    def forget_all(self) -> None:
        """Cancel whatever goes on for this client."""
        self._is_over = True
        for sink in list(self._requests.values()):
            sink.cancel()

    def _cut_off(self) -> None:
        self._is_over = True
        self._outgoing.end_with(
            frame(
                Farewell(
                    "this program didn't read what the engine sent it, so its requests were "
                    "cancelled: read answers as they come"
                )
            )
        )
        self._later(self.forget_all)

    def _later(self, do: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # all of it is being closed
            # Not in this thread: it is the engine's, amid a step.
            self._compilers.submit(do)


def _is_slow(message: Submit | Embed) -> bool:
    sampling = message.fields.get("sampling")
    return "constraint" in message.fields or (
        isinstance(sampling, dict) and bool(sampling.get("grammar"))
    )


_StepParts = tuple[list[tuple[int, Delta]], list[tuple[int, Problem]], list[tuple[int, Rows]]]


def _new_step() -> _StepParts:
    return [], [], []


class _RequestSink:
    """Where the engine puts what it computes for one request of a connection."""

    def __init__(self, connection: Connection, engine: ServedEngine, number: int) -> None:
        self._connection, self._number = connection, number
        self._cancel: Callable[[int], None] = engine.cancel
        self._engine_id: int | None = None
        self._is_cancelled = False
        self._lock = threading.Lock()
        self.n_open = 1

    def put(self, _request_id: int, item: Any) -> None:
        self._connection.collect(self._number, item)
        if not isinstance(item, Delta):
            self._connection.done(self._number)
        elif item.finish_reason is not None:
            self.n_open -= 1
            if not self.n_open:
                self._connection.done(self._number)

    def flush(self) -> None:
        self._connection.flush()

    def began(self, engine_id: int) -> None:
        """Note under which number the engine knows it."""
        with self._lock:
            self._engine_id = engine_id
            is_cancelled = self._is_cancelled
        if is_cancelled:
            self._cancel(engine_id)

    def cancel(self) -> None:
        with self._lock:
            self._is_cancelled = True
            engine_id = self._engine_id
        if engine_id is not None:
            with contextlib.suppress(EngineError):
                self._cancel(engine_id)
