"""A client's connection to an engine, made anew when the engine's process is.

Owns the requests that are under way and what becomes of them when the process dies. A thread of
its own reads what the engine sends and gives it to handles and sinks. Imports the standard library,
`llamalite.errors` and its siblings.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterable
from typing import Any

from llamalite.engine.facts import EngineFacts
from llamalite.engine.process.crossing import array_of, error_of
from llamalite.engine.process.pending import Pending, copy_of, deliver, deliver_end, flush, unread
from llamalite.engine.process.rendezvous import State
from llamalite.engine.process.sockets import Outgoing
from llamalite.engine.process.source import Approach, Source, welcome
from llamalite.engine.process.wire import (
    Accepted,
    AskStats,
    Cancel,
    Farewell,
    FromEngine,
    Messages,
    Refused,
    Stats,
    Step,
    Welcome,
    frame,
)
from llamalite.engine.stats import EngineStats
from llamalite.errors import (
    EngineClosed,
    EngineCrashed,
    EngineError,
    LlamaliteError,
    QueueFull,
)

_log = logging.getLogger("llamalite.engine")
_MOST_BYTES = 256 << 20
_MOST_HELD = 1024
"""Requests that may wait while there is no connection."""
_POLL_S = 0.1
_STATS_LIMIT_S = 5.0
_JOIN_LIMIT_S = 2.0


class Link:
    """Connects in a thread of its own, until it is closed or there is no engine any more."""

    def __init__(self, source: Source) -> None:
        self._source = source
        # Reentrant: what is dropped is cancelled wherever it happens to be collected.
        self._lock = threading.RLock()
        self._pending: dict[int, Pending] = {}
        self._asked: dict[int, _Asked] = {}
        self._n_asked = 0
        self._outgoing: Outgoing | None = None
        self._facts: EngineFacts | None = None
        self._failure: LlamaliteError | None = None
        self._is_closed = False
        self._settled = threading.Event()  # connected once, or failed
        self._thread = threading.Thread(target=self._run, name="llamalite-link", daemon=True)
        self._thread.start()

    @property
    def n_pending(self) -> int:
        """Number of requests that haven't ended."""
        return len(self._pending)

    def facts(self) -> EngineFacts:
        """Wait until connected for the first time and return what was loaded.

        Raises:
            LlamaliteError: there is no engine.
        """
        while not self._settled.wait(_POLL_S):  # see handle: so that it can be interrupted
            pass
        if self._facts is None:
            assert self._failure is not None
            raise copy_of(self._failure)
        return self._facts

    def submit(self, pending: Pending) -> None:
        """Send a request, and wait until the engine has taken it unless it is being started anew.

        A sink may call this, too: then it doesn't wait, and a refusal comes through the sink.

        Raises:
            RequestError: it was refused.
            LlamaliteError: there is no engine.
        """
        self.facts()
        content = pending.frame()
        with self._lock:
            if self._failure is not None:
                raise copy_of(self._failure)
            if self._outgoing is None and len(self._pending) >= _MOST_HELD:
                raise QueueFull(
                    f"{_MOST_HELD} requests are waiting for the engine to be started anew: try "
                    "later"
                )
            self._pending[pending.id] = pending
            pending.is_awaited = not self._is_own_thread()
            if self._outgoing is None:
                pending.taken.set()
            elif not self._send(pending, content, self._outgoing):
                del self._pending[pending.id]
                raise unread()
        if not pending.is_awaited:
            return
        try:
            while not pending.taken.wait(_POLL_S):
                pass
        except BaseException:
            self.cancel(pending.id)
            raise
        with self._lock:
            pending.is_awaited = False
        if pending.refusal is not None:
            raise pending.refusal

    def cancel(self, number: int) -> None:
        """End a request, if it hasn't ended."""
        with self._lock:
            pending = self._pending.get(number)
            if pending is None:
                return
            pending.is_cancelled = True
            if self._outgoing is not None:
                self._outgoing.send(frame(Cancel(number)))
                return
            if pending.is_under_way:
                return  # `_lost` finds it
            del self._pending[number]
        deliver_end([pending], "cancelled")

    def stats(self) -> EngineStats | None:
        """Ask for the engine's stats; None while there is no connection, and for a sink."""
        if self._is_own_thread():
            return None
        asked = _Asked()
        with self._lock:
            if self._outgoing is None:
                return None
            self._n_asked += 1
            number = self._n_asked
            self._asked[number] = asked
            self._outgoing.send(frame(AskStats(number)))
        asked.done.wait(_STATS_LIMIT_S)
        with self._lock:
            self._asked.pop(number, None)
        return asked.stats

    def close(self) -> None:
        """Disconnect and close the source; what is under way raises EngineClosed."""
        self._end(EngineClosed("the engine was closed before it had answered"))
        self._source.close()  # the thread may be waiting for it
        if not self._is_own_thread():
            self._thread.join(_JOIN_LIMIT_S)

    def _is_own_thread(self) -> bool:
        # It is the one that reads: a sink which waited for an answer in it would wait forever.
        return threading.current_thread() is self._thread

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        approach = Approach()
        try:
            while not self._is_closed:
                state = self._source.wait_ready(self._goes_on)
                connection = approach.connect(state)
                if connection is not None:
                    self._lost(self._converse(connection), state)
        except LlamaliteError as error:
            self._end(error)
        except Exception as error:
            _log.exception("the connection to the engine failed")
            self._end(EngineError(f"the connection to the engine failed: {error}"))

    def _converse(self, connection: socket.socket) -> str | None:
        """Talk until the connection ends; return the engine's reason, if it gave one."""
        outgoing = Outgoing(connection, _MOST_BYTES)
        reason = None
        try:
            with connection.makefile("rb") as stream, contextlib.suppress(ConnectionError):
                messages = Messages(stream, FromEngine)
                self._welcomed(welcome(messages), outgoing)
                while (message := messages.read()) is not None:
                    if isinstance(message, Farewell):
                        reason = message.reason
                    else:
                        self._take(message)
        finally:
            with self._lock:
                self._outgoing = None
            outgoing.close()
            connection.close()
        return reason

    def _welcomed(self, message: Welcome, outgoing: Outgoing) -> None:
        unsent: list[tuple[Pending, LlamaliteError]] = []
        with self._lock:
            if self._is_closed:
                outgoing.close()
                return
            self._facts = message.facts
            waiting = list(self._pending.values())
            for pending in waiting:
                if pending.is_cancelled:
                    continue
                try:
                    if not self._send(pending, pending.frame(), outgoing):
                        unsent.append((pending, unread()))
                except LlamaliteError as error:
                    unsent.append((pending, error))
            self._outgoing = outgoing
            for pending in waiting:
                if pending.is_cancelled and pending.is_under_way:  # while it was sent
                    outgoing.send(frame(Cancel(pending.id)))
        self._settled.set()
        for pending, problem in unsent:
            self._fail([pending], problem)

    def _send(self, pending: Pending, content: bytes, outgoing: Outgoing) -> bool:
        if not outgoing.send(content):
            return False
        pending.was_sent()
        return True

    def _take(self, message: Any) -> None:
        if isinstance(message, Step):
            self._step(message)
        elif isinstance(message, Accepted):
            if (pending := self._pending.get(message.id)) is not None:
                pending.taken.set()
        elif isinstance(message, Refused):
            self._refused(message)
        elif isinstance(message, Stats):
            asked = self._asked.get(message.id)
            if asked is not None:
                asked.stats = message.stats
                asked.done.set()

    def _refused(self, message: Refused) -> None:
        error = error_of(message.problem)
        with self._lock:
            pending = self._pending.pop(message.id, None)
            if pending is None:
                return
            if pending.is_awaited:
                pending.refusal = error
                pending.taken.set()
                return
        deliver(pending, error)
        flush([pending])

    def _step(self, step: Step) -> None:
        touched = []
        items = [
            *step.deltas,
            *((number, error_of(problem)) for number, problem in step.problems),
            *((number, array_of(rows)) for number, rows in step.embeddings),
        ]
        for number, item in items:
            pending = self._pending.get(number)
            if pending is None:
                continue
            pending.taken.set()
            touched.append(pending)
            if deliver(pending, item):
                with self._lock:
                    self._pending.pop(number, None)
        flush(touched)

    def _goes_on(self) -> bool:
        """Say whether to wait on, and end those meanwhile whose time is up."""
        with self._lock:
            overdue = [pending for pending in list(self._pending.values()) if pending.is_overdue]
            for pending in overdue:
                self._pending.pop(pending.id, None)
        deliver_end(overdue, "time_limit")
        return not self._is_closed

    # -- ends -------------------------------------------------------------------------------------

    def _lost(self, reason: str | None, state: State) -> None:
        """Decide what becomes of the requests that the engine had."""
        ending = None
        if reason is None and not self._is_closed:
            ending = self._source.death_of(state.incarnation)
        with self._lock:
            asked = list(self._asked.values())
            lost = [pending for pending in list(self._pending.values()) if pending.is_under_way]
            for pending in lost:
                pending.is_under_way = False  # from now on, who cancels it ends it
            cancelled = [pending for pending in lost if pending.is_cancelled]
            rest = [pending for pending in lost if not pending.is_cancelled]
            for pending in cancelled:
                self._pending.pop(pending.id, None)
        for waiting in asked:
            waiting.done.set()
        deliver_end(cancelled, "cancelled")
        if reason is not None:
            self._fail(rest, EngineError(reason))
            return
        what = f"the engine's process died ({ending})" if ending else "the engine's process is gone"
        seen = ending is not None
        self._fail(
            [one for one in rest if not one.can_be_sent_again(death_was_seen=seen)],
            EngineCrashed(f"{what} before it had answered: ask again"),
        )
        for pending in rest:
            pending.taken.set()

    def _end(self, error: LlamaliteError) -> None:
        with self._lock:
            if self._failure is not None:
                return
            self._failure, self._is_closed = error, True
            outgoing, self._outgoing = self._outgoing, None
            left = list(self._pending.values())
            asked = list(self._asked.values())
        if outgoing is not None:
            outgoing.close()
        for waiting in asked:
            waiting.done.set()
        self._fail(left, error)
        self._settled.set()

    def _fail(self, requests: Iterable[Pending], error: LlamaliteError) -> None:
        failed = []
        for pending in requests:
            with self._lock:
                if self._pending.pop(pending.id, None) is None:
                    continue
            failed.append(pending)
            deliver(pending, copy_of(error))
            pending.taken.set()
        flush(failed)


class _Asked:
    """Stats that were asked for."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.stats: EngineStats | None = None
