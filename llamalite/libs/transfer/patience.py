"""Waiting in small steps, so that whoever waits can be called off at any of them.

Owns how often that is, and the threads in which the network keeps nobody waiting. Doesn't know
what is waited for. Imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import http.client  # PERF: takes 50 ms, and the cache imports this module

Beat = Callable[[], None]
"""Is called while something is waited for; what it raises ends the waiting."""

BEAT_S = 0.2
"""Longest time between two beats."""

LEAST_BYTES = 1024
"""Fewer of them within the limit for silence are as good as none."""

INTERRUPT_GRACE_S = 0.3
"""How long a thread that is waited for may still take when the wait is interrupted."""

_BLOCK_BYTES = 1 << 16
_T = TypeVar("_T")


def rest(seconds: float, beat: Beat) -> None:
    """Sleep."""
    while seconds > 0:
        time.sleep(min(seconds, BEAT_S))
        seconds -= BEAT_S
        beat()


def within(limit_s: float, call: Callable[[], _T], beat: Beat | None = None) -> _T:
    """Return what a call returns, or raise TimeoutError when that takes too long.

    Meanwhile `beat` is called now and then, and what it raises is raised at once.

    The call runs in a thread of its own, because a name look-up can't be given a limit and a
    socket's is for each of its reads. Where it is late, what it returns is closed.

    NOTE: what the call needs of OpenSSL is set up before, in the calling thread: a daemon thread
    that loads certificates while Python exits crashes it. Hence the pause after Ctrl-C, too.
    """
    outcome: list[_T] = []
    failure: list[BaseException] = []
    lock, late = threading.Lock(), threading.Event()

    def run() -> None:
        try:
            result = call()
        except BaseException as error:
            failure.append(error)
            return
        with lock:
            outcome.append(result)
            if late.is_set() and hasattr(result, "close"):
                result.close()

    thread = threading.Thread(target=run, name="llamalite-request", daemon=True)
    thread.start()
    try:
        _join(thread, limit_s, beat)
    except KeyboardInterrupt:
        thread.join(INTERRUPT_GRACE_S)
        raise
    finally:
        with lock:
            if not outcome:
                late.set()
    if failure:
        raise failure[0]
    if late.is_set():
        raise TimeoutError(f"no answer in {limit_s:.3g} s")
    return outcome[0]


def _join(thread: threading.Thread, limit_s: float, beat: Beat | None) -> None:
    end = time.monotonic() + limit_s
    while thread.is_alive() and (left := end - time.monotonic()) > 0:
        thread.join(min(left, BEAT_S) if beat else left)
        if beat and thread.is_alive():
            beat()


class Arriving:
    """What is left to read of an answer, which is closed with the `with` block.

    Args:
        answer: is read by a thread of its own, at most two blocks ahead.
        silence_s: longest time that LEAST_BYTES may take.
        beat: is called while the server is silent.
    """

    def __init__(self, answer: http.client.HTTPResponse, silence_s: float, beat: Beat) -> None:
        self._answer, self._silence_s, self._beat = answer, silence_s, beat
        self._blocks: queue.Queue[bytes | Exception] = queue.Queue(1)
        self._last: bytes | Exception | None = None
        self._is_over = threading.Event()
        self._wire: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="llamalite-reader", daemon=True)

    def __enter__(self) -> Arriving:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # an answer without a body
            self._wire = socket.fromfd(self._answer.fileno(), socket.AF_INET, socket.SOCK_STREAM)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        with contextlib.suppress(queue.Empty):
            self._blocks.get_nowait()  # the thread may be waiting for the room
        if self._wire is not None:
            with self._wire, contextlib.suppress(OSError):  # closed already
                self._wire.shutdown(socket.SHUT_RDWR)
        self._thread.join(INTERRUPT_GRACE_S)

    def read(self) -> bytes:
        """Return what came next; b"" at the end.

        Raises:
            TimeoutError: the server is silent, or drips.
            OSError, HTTPException, ValueError: the connection broke.
        """
        block, deadline = b"", time.monotonic() + self._silence_s
        while len(block) < LEAST_BYTES:
            fresh = self._next(deadline)
            if isinstance(fresh, Exception) and not block:
                raise fresh
            if isinstance(fresh, Exception) or not fresh:
                break
            block += fresh
        return block

    def _next(self, deadline: float) -> bytes | Exception:
        """Return a block, or what ended the reading, from then on always."""
        while self._last is None:
            left = deadline - time.monotonic()
            try:
                found = self._blocks.get(timeout=max(0.0, min(left, BEAT_S)))
            except queue.Empty:
                # NOTE: a server that drips a byte now and then is never silent, and never done.
                if left <= 0:
                    self._last = TimeoutError()
                else:
                    self._beat()
                continue
            if found and not isinstance(found, Exception):
                return found
            self._last = found
        return self._last

    def _run(self) -> None:
        try:
            with self._answer:
                while not self._is_over.is_set():
                    block = self._answer.read1(_BLOCK_BYTES)
                    self._blocks.put(block)
                    if not block:
                        break
        except Exception as error:
            self._blocks.put(error)
