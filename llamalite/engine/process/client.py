"""EngineClient: an engine in another process, with the methods of Engine.

Owns what its caller sees. What happens between a request and its answers is `link`'s. Imports the
standard library, numpy, `llamalite.errors` and its siblings.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from dataclasses import replace
from types import TracebackType

from llamalite.engine.facts import EngineFacts
from llamalite.engine.handle import Embedding, Generation, Sink
from llamalite.engine.process.link import Link
from llamalite.engine.process.pending import Pending
from llamalite.engine.process.source import Source
from llamalite.engine.request import EmbeddingRequest, GenerationRequest
from llamalite.engine.stats import EngineStats
from llamalite.errors import EngineClosed

_PAUSE_S = 0.01


class EngineClient:
    """An engine that runs in another process; any thread may call it.

    It connects on first use, in each process anew: a fork of the program has a connection of its
    own.

    Args:
        source: says where the engine is.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._link: Link | None = None
        self._lock = threading.Lock()
        self._is_closed = self._is_draining = False
        _clients.add(self)

    def start(self) -> None:
        """Connect now.

        Raises:
            LlamaliteError: there is no such engine any more.
        """
        self._connected().facts()

    @property
    def facts(self) -> EngineFacts:
        """What was loaded; waits until the engine is ready.

        Raises:
            LlamaliteError: there is no such engine any more.
        """
        return self._connected().facts()

    def submit(self, request: GenerationRequest, sink: Sink | None = None) -> Generation:
        """Take a request; returns once the engine has taken it, or is being started anew.

        Args:
            request: what to generate.
            sink: takes the deltas, in a thread of this client, instead of the Generation.

        Raises:
            RequestError: it can't be done as asked, or too many requests wait.
            EngineError: there is no engine.
        """
        self._check_open()
        link = self._connected()
        generation = Generation(request.n, link.cancel)
        link.submit(Pending(generation.id, request, sink or generation))
        return generation

    def embed(self, request: EmbeddingRequest, sink: Sink | None = None) -> Embedding:
        """Take texts to embed; otherwise as `submit`."""
        self._check_open()
        link = self._connected()
        embedding = Embedding()
        link.submit(Pending(embedding.id, request, sink or embedding))
        return embedding

    def cancel(self, request_id: int) -> None:
        """End a request of this client."""
        link = self._link  # read once: another thread may close it
        if link is not None:
            link.cancel(request_id)

    def stats(self) -> EngineStats:
        """Return what the engine has done since it was last started, for all its clients.

        While it is being started anew there are no counts but of restarts and of what waits here.
        """
        link = self._connected()
        stats = link.stats()
        if stats is None:
            stats = EngineStats(n_waiting=link.n_pending)
        return replace(stats, n_restarts=self._source.state().n_restarts)

    def drain(self, timeout_s: float) -> bool:
        """Take no more requests and wait for this client's own; whether they ended in time."""
        self._is_draining = True
        deadline = time.monotonic() + timeout_s
        while (link := self._link) is not None and link.n_pending:
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE_S)
        return True

    def close(self) -> None:
        """Disconnect; requests under way raise EngineClosed, and later ones do."""
        with self._lock:
            self._is_closed = True
            link, self._link = self._link, None
        if link is not None:
            link.close()
        else:
            self._source.close()

    def __enter__(self) -> EngineClient:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._is_draining:
            raise EngineClosed("the engine takes no more requests: it is about to end")

    def _connected(self) -> Link:
        with self._lock:
            if self._is_closed:
                raise EngineClosed("the engine was closed: start it again")
            if self._link is None:
                self._link = Link(self._source)
            return self._link

    def begin_anew(self) -> None:
        """Forget, in a fork, what is its parent's."""
        self._lock = threading.Lock()
        self._link = None
        self._source.begin_anew()


_clients: weakref.WeakSet[EngineClient] = weakref.WeakSet()


def _begin_anew_after_fork() -> None:
    # The connection, its thread and its requests are the parent's.
    for client in list(_clients):
        client.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew_after_fork)
