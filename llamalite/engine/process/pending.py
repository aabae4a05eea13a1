"""A request on its way: what came of it so far, and what its loss means.

Owns whether a request can be submitted again. Doesn't know connections. Imports the standard
library, `llamalite.errors` and its siblings.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from llamalite.engine.handle import Sink
from llamalite.engine.process.crossing import embed_message, submit_message
from llamalite.engine.process.wire import frame
from llamalite.engine.request import EmbeddingRequest, GenerationRequest
from llamalite.engine.result import Delta
from llamalite.errors import EngineError, LlamaliteError, QueueFull

_log = logging.getLogger("llamalite.engine")
_MOST_SENT = 2
_MOST_SENT_UNSEEN = 4
"""Where nobody saw the engine die: its host was ending, perhaps, and took the next engine along."""


class Pending:
    """A request that hasn't ended.

    Args:
        number: by which it is known.
        request: what was asked for.
        sink: takes what comes.

    Attributes:
        id: its number.
        taken: set once the engine has taken or refused it, or was lost.
        refusal: what the engine refused it with, while `is_awaited`.
        is_awaited: whether its submission still waits to hear of it.
        is_cancelled: whether it was cancelled.
        is_under_way: whether an engine has it, or had it and nobody has noticed its death yet.
    """

    def __init__(
        self, number: int, request: GenerationRequest | EmbeddingRequest, sink: Sink
    ) -> None:
        self.id, self.sink, self._request = number, sink, request
        n = request.n if isinstance(request, GenerationRequest) else 0
        self._open = set(range(n))
        self._has_output = False
        self._n_sent = 0
        self._submitted = time.monotonic()
        self.taken = threading.Event()
        self.refusal: LlamaliteError | None = None
        self.is_awaited = True
        self.is_cancelled = self.is_under_way = False

    def frame(self) -> bytes:
        """Return what submits it, with what is left of its time.

        Raises:
            InvalidParameter: it can't be sent to another process.
        """
        request = self._request
        if isinstance(request, EmbeddingRequest):
            return frame(embed_message(self.id, request))
        if (rest := self._rest_s()) is not None:
            request = replace(request, time_limit_s=max(rest, 0.001))
        return frame(submit_message(self.id, request))

    def _rest_s(self) -> float | None:
        limit_s = getattr(self._request, "time_limit_s", None)
        return None if limit_s is None else limit_s - (time.monotonic() - self._submitted)

    @property
    def is_overdue(self) -> bool:
        """Say whether its time is up."""
        rest = self._rest_s()
        return rest is not None and rest <= 0

    def was_sent(self) -> None:
        """Note that the engine has it."""
        self._n_sent += 1
        self.is_under_way = True

    def can_be_sent_again(self, *, death_was_seen: bool) -> bool:
        """Say whether another process of the engine may begin it anew without anybody noticing.

        Args:
            death_was_seen: its last engine is known to have died, perhaps of this very request.
        """
        most = _MOST_SENT if death_was_seen else _MOST_SENT_UNSEEN
        return not self._has_output and self._n_sent < most

    def note(self, item: Any) -> bool:
        """Note what came; True if that was the last of it."""
        self._has_output = True
        if not isinstance(item, Delta):
            return True
        if item.finish_reason is not None:
            self._open.discard(item.index)
        return not self._open

    def endings(self, finish_reason: str) -> list[Any]:
        """Return what ends all that is open."""
        if isinstance(self._request, EmbeddingRequest):
            return [EngineError("the request was cancelled")]
        return [Delta(index=index, finish_reason=finish_reason) for index in sorted(self._open)]


def deliver(pending: Pending, item: Any) -> bool:
    """Pass on what came for a request; True if that was the last of it."""
    is_last = pending.note(item)
    try:
        pending.sink.put(pending.id, item)
    except Exception:  # a sink of the caller's, which mustn't end everybody's connection
        _log.exception("a request's sink failed")
    return is_last


def deliver_end(requests: Iterable[Pending], finish_reason: str) -> None:
    """End what is open of requests."""
    for pending in requests:
        for item in pending.endings(finish_reason):
            deliver(pending, item)
        pending.taken.set()
    flush(requests)


def flush(requests: Iterable[Pending]) -> None:
    """Tell the requests' sinks that a step is over."""
    for sink in {id(pending.sink): pending.sink for pending in requests}.values():
        try:
            sink.flush()
        except Exception:
            _log.exception("a request's sink failed")


def copy_of(error: LlamaliteError) -> LlamaliteError:
    """Return an exception of its own for each request: raising one adds to its traceback."""
    twin = type(error).__new__(type(error))
    Exception.__init__(twin, *error.args)
    vars(twin).update(vars(error))
    return twin


def unread() -> QueueFull:
    """Return the error for a request that can't be sent for lack of a reader."""
    return QueueFull("the engine's process doesn't take what is sent to it: try later")
