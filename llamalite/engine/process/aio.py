"""AsyncEngine: an engine for asyncio, in this process or in another one.

Owns the way from the engine's threads into an event loop. Imports asyncio, numpy,
`llamalite.errors` and what requests and answers are made of.
"""

from __future__ import annotations

import asyncio
import collections
import threading
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from llamalite.engine.facts import EngineFacts
from llamalite.engine.handle import Embedding, Generation, Sink
from llamalite.engine.request import EmbeddingRequest, GenerationRequest
from llamalite.engine.result import Delta, GenerationResult
from llamalite.engine.stats import EngineStats

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


_AnyHandle = TypeVar("_AnyHandle", Generation, Embedding)


class AnyEngine(Protocol):
    """An Engine with a thread of its own, an EngineProcess or an EngineClient."""

    @property
    def facts(self) -> EngineFacts:
        """What was loaded."""
        ...

    def submit(self, request: GenerationRequest, sink: Sink | None = None) -> Generation:
        """Take a request."""
        ...

    def embed(self, request: EmbeddingRequest, sink: Sink | None = None) -> Embedding:
        """Take texts to embed."""
        ...

    def cancel(self, request_id: int) -> None:
        """End a request."""
        ...

    def stats(self) -> EngineStats:
        """Say what it has done."""
        ...

    def drain(self, timeout_s: float) -> bool:
        """Finish what there is."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


class AsyncEngine:
    """The methods of an engine for one event loop at a time; none of them blocks it.

    Args:
        engine: computes in a thread or process of its own (an Engine has to be started).
    """

    def __init__(self, engine: AnyEngine) -> None:
        self._engine = engine

    async def facts(self) -> EngineFacts:
        """Wait until the engine is ready and return what was loaded."""
        return await asyncio.to_thread(lambda: self._engine.facts)

    async def submit(self, request: GenerationRequest) -> AsyncGeneration:
        """Take a request; what can't be done as asked raises here."""
        mailbox = _Mailbox(asyncio.get_running_loop())
        handle = await self._submitted(asyncio.to_thread(self._engine.submit, request, mailbox))
        return AsyncGeneration(self._engine, handle, mailbox)

    async def _submitted(self, submitting: Coroutine[Any, Any, _AnyHandle]) -> _AnyHandle:
        """Return the handle; who is cancelled meanwhile cancels the request, too."""
        submission = asyncio.ensure_future(submitting)
        try:
            return await asyncio.shield(submission)
        except asyncio.CancelledError:
            submission.add_done_callback(self._cancel_submitted)
            raise

    def _cancel_submitted(self, submission: asyncio.Future[_AnyHandle]) -> None:
        if not submission.cancelled() and submission.exception() is None:
            self._engine.cancel(submission.result().id)

    async def embed(self, request: EmbeddingRequest) -> npt.NDArray[np.float32]:
        """Return the embeddings of texts, float32[n_texts, n_embd_out]."""
        mailbox = _Mailbox(asyncio.get_running_loop())
        handle = await self._submitted(asyncio.to_thread(self._engine.embed, request, mailbox))
        try:
            rows: npt.NDArray[np.float32] = await mailbox.next()
        except asyncio.CancelledError:
            self._engine.cancel(handle.id)
            raise
        return rows

    async def stats(self) -> EngineStats:
        """Say what the engine has done."""
        return await asyncio.to_thread(self._engine.stats)

    async def drain(self, timeout_s: float) -> bool:
        """Take no more requests and finish those there are; whether they ended in time."""
        return await asyncio.to_thread(self._engine.drain, timeout_s)

    async def close(self) -> None:
        """Close the engine."""
        await asyncio.to_thread(self._engine.close)


class AsyncGeneration(AsyncIterator[Delta]):
    """Answers under way; leaving `async with` before their end cancels them.

    Attributes:
        id: number of the request.
    """

    def __init__(self, engine: AnyEngine, handle: Generation, mailbox: _Mailbox) -> None:
        self.id = handle.id
        self._engine, self._handle, self._mailbox = engine, handle, mailbox
        self._n_open = handle.n

    async def __anext__(self) -> Delta:
        if not self._n_open:
            raise StopAsyncIteration
        try:
            delta: Delta = await self._mailbox.next()
        except Exception:
            self._n_open = 0
            raise
        # The handle puts answers together as it does for synchronous callers.
        self._handle.put(self.id, delta)
        self._handle.next()
        if delta.finish_reason is not None:
            self._n_open -= 1
        return delta

    async def results(self) -> list[GenerationResult]:
        """Wait for all answers and return them, by index."""
        async for _ in self:
            pass
        return self._handle.so_far()

    async def result(self) -> GenerationResult:
        """Wait for all answers and return the first."""
        return (await self.results())[0]

    def so_far(self) -> list[GenerationResult]:
        """Return what has been read until now; unfinished answers count as cancelled."""
        return self._handle.so_far()

    def cancel(self) -> None:
        """End it; its answers then end with "cancelled" unless they had ended."""
        self._engine.cancel(self.id)

    async def __aenter__(self) -> AsyncGeneration:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._n_open:
            self.cancel()


class _Mailbox:
    """A Sink that wakes an event loop once for each step."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._coming: list[Any] = []
        self._here: collections.deque[Any] = collections.deque()
        self._changed = asyncio.Event()
        self._lock = threading.Lock()

    def put(self, _request_id: int, item: Any) -> None:
        with self._lock:
            self._coming.append(item)

    def flush(self) -> None:
        with self._lock:
            items, self._coming = self._coming, []
        if not items or self._loop.is_closed():
            return
        try:
            self._loop.call_soon_threadsafe(self._arrive, items)
        except RuntimeError:
            return  # the loop was closed just now, and nobody reads any more

    def _arrive(self, items: list[Any]) -> None:
        self._here.extend(items)
        self._changed.set()

    async def next(self) -> Any:
        while not self._here:
            self._changed.clear()
            await self._changed.wait()
        item = self._here.popleft()
        if isinstance(item, BaseException):
            raise item
        return item
