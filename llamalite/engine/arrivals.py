"""What comes from other threads: requests, cancels, the wish to end; and how much may be there.

Owns the bound on what is live and the door. Doesn't know what requests are or what becomes of them.
Imports the standard library and `llamalite.errors`.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from llamalite.errors import EngineClosed, InvalidParameter, QueueFull

T = TypeVar("T")


class Arrivals(Generic[T]):
    """Items on their way to the thread that computes; any thread.

    Args:
        most: how many may be live: being made, waiting or computed.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # Reentrant, because the garbage collector may cancel a request at any moment.
        self._news = threading.Condition(threading.RLock())
        self._arrived: deque[T] = deque()
        self._cancelled: set[int] = set()
        self._n_live: Counter[str] = Counter()
        self._closing: str | None = None

    # -- for whoever submits ------------------------------------------------------------------

    @contextlib.contextmanager
    def place_for(self, kind: str, n: int) -> Iterator[None]:
        """Take places for n items, given back if they aren't made; `put` them inside.

        Raises:
            InvalidParameter: so many never find a place.
            QueueFull: there are too many at the moment.
            EngineClosed: the door is closed.
        """
        with self._news:
            self._check_open()
            if n > self._most:
                raise InvalidParameter(
                    f"{n} answers are wanted and no more than {self._most} are ever taken at once: "
                    "ask for fewer, or raise n_parallel or n_queue",
                    param="n",
                )
            if self.n_live + n > self._most:
                raise QueueFull(
                    f"{self.n_live} answers and embeddings are being computed or waiting, and no "
                    f"more than {self._most} may: try again later, or raise the length of the queue"
                )
            self._n_live[kind] += n
        try:
            yield
        except BaseException:
            self.ended(kind, n)
            raise

    def put(self, items: Iterable[T]) -> None:
        """Pass on items that have a place; raises EngineClosed if the door is closed."""
        with self._news:
            self._check_open()
            self._arrived.extend(items)
            self._news.notify_all()

    def cancel(self, request_id: int) -> None:
        """Let a request be cancelled."""
        with self._news:
            self._cancelled.add(request_id)
            self._news.notify_all()

    def close(self, why: str) -> None:
        """Take nothing more."""
        with self._news:
            self._closing = why

    def _check_open(self) -> None:
        if self._closing is not None:
            raise EngineClosed(self._closing)

    # -- for whoever computes -----------------------------------------------------------------

    def first(self) -> T | None:
        """Return what arrived first; it stays until it is dropped."""
        return self._arrived[0] if self._arrived else None

    def drop(self) -> None:
        """Forget what arrived first: it has been taken."""
        self._arrived.popleft()

    def cancelled(self) -> set[int]:
        """Return the requests to cancel, until they are forgotten."""
        if not self._cancelled:  # PERF: asked before every step
            return set()
        with self._news:
            return set(self._cancelled)

    def forget(self, cancelled: set[int]) -> None:
        """Forget cancels: they have been done."""
        with self._news:
            self._cancelled -= cancelled

    def ended(self, kind: str, n: int = 1) -> None:
        """Give places back."""
        with self._news:
            self._n_live[kind] -= n
            self._news.notify_all()

    def count(self, kind: str) -> int:
        """Return how many items of a kind are live."""
        return self._n_live[kind]

    @property
    def n_live(self) -> int:
        """Items being made, waiting or computed."""
        return sum(self._n_live.values())

    @property
    def is_closed(self) -> bool:
        """Say whether the door is closed."""
        return self._closing is not None

    def wake(self) -> None:
        """Wake who waits."""
        with self._news:
            self._news.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Wait until anything changes here."""
        with self._news:
            self._news.wait(timeout_s)

    def wait_for_news(self, timeout_s: float, until: threading.Event) -> None:
        """Wait for something to do, or that an event is set and `wake` called."""
        with self._news:
            if not self._arrived and not self._cancelled and not until.is_set():
                self._news.wait(timeout_s)
