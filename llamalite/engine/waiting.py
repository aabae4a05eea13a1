"""Who waits for a slot, and in which order.

Owns the order. Doesn't know what waits, what for, or how much may. Imports the standard library.
"""

from __future__ import annotations

import threading
from bisect import insort
from collections import deque
from collections.abc import Iterator
from operator import neg
from typing import Generic, TypeVar

T = TypeVar("T")


class WaitingQueue(Generic[T]):
    """Items in order of priority, equal ones in order of arrival; any thread."""

    def __init__(self) -> None:
        self._levels: dict[int, deque[T]] = {}
        self._order: list[int] = []  # priorities in use, highest first
        self._lock = threading.Lock()
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[T]:
        """Go through what waits at this moment, first to go first."""
        with self._lock:
            return iter([item for priority in self._order for item in self._levels[priority]])

    def push(self, item: T, priority: int = 0) -> None:
        """Let an item wait behind its equals."""
        with self._lock:
            self._level(priority).append(item)
            self._n += 1

    def push_front(self, item: T, priority: int = 0) -> None:
        """Let an item wait before its equals: it has had its turn, and lost it."""
        with self._lock:
            self._level(priority).appendleft(item)
            self._n += 1

    def peek(self) -> T | None:
        """Return the item that is next, or None."""
        with self._lock:
            return self._levels[self._order[0]][0] if self._order else None

    def pop(self) -> T | None:
        """Take the item that is next, or None."""
        with self._lock:
            if not self._order:
                return None
            item = self._levels[self._order[0]].popleft()
            self._removed(self._order[0])
            return item

    def remove(self, item: T) -> bool:
        """Take an item out, wherever it is (the very object); False if it doesn't wait."""
        with self._lock:
            for priority, level in self._levels.items():
                for index, other in enumerate(level):
                    if other is item:
                        del level[index]
                        self._removed(priority)
                        return True
        return False

    def _level(self, priority: int) -> deque[T]:
        if priority not in self._levels:
            self._levels[priority] = deque()
            insort(self._order, priority, key=neg)
        return self._levels[priority]

    def _removed(self, priority: int) -> None:
        self._n -= 1
        if not self._levels[priority]:
            del self._levels[priority]
            self._order.remove(priority)
