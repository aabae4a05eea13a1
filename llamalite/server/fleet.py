"""Models on demand: loaded when first asked for, kept for a while, unloaded for others.

Owns which models are loaded and who uses them. Doesn't know what a model is but that it can be
loaded, closed, and may not fit. Imports the standard library and `llamalite.errors`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from llamalite.errors import DoesNotFit, EngineClosed, LlamaliteError, QueueFull

_log = logging.getLogger("llamalite.server")
_TICK_S = 1.0


class Closable(Protocol):
    """What a fleet holds."""

    def close(self) -> None:
        """Free it."""
        ...


_M = TypeVar("_M", bound=Closable)


class _Berth(Generic[_M]):
    """A model's place: being loaded, loaded, or failed."""

    def __init__(self) -> None:
        self.model: _M | None = None
        self.error: LlamaliteError | None = None
        self.settled = threading.Event()
        self.n_users = 0
        self.used_at = time.monotonic()

    @property
    def is_idle(self) -> bool:
        return self.model is not None and not self.n_users


class Fleet(Generic[_M]):
    """Loaded models by key; any thread.

    Args:
        load: loads the model of a key; may take long.
        most: models loaded at once; 0 = as many as fit.
        keep_alive_s: seconds an unused model stays; below 0 = for good.
        most_waiting: requests that may wait for models to load; more raise QueueFull.
    """

    def __init__(
        self,
        load: Callable[[str], _M],
        *,
        most: int = 0,
        keep_alive_s: float = 300.0,
        most_waiting: int = 256,
    ) -> None:
        self._load, self._most, self._keep_alive_s = load, most, keep_alive_s
        self._most_waiting = most_waiting
        self._lock = threading.Condition()
        self._one_by_one = threading.Lock()  # two that wait for each other's room never get it
        self._berths: dict[str, _Berth[_M]] = {}
        self._kept: set[str] = set()
        self._n_waiting = 0
        self._is_closed = False
        self._reaper: threading.Thread | None = None

    @contextlib.contextmanager
    def use(self, key: str) -> Iterator[_M]:
        """Lend a model, loading it if need be; it stays loaded meanwhile.

        Raises:
            QueueFull: too many wait for models to load.
            EngineClosed: the server is ending.
            LlamaliteError: it can't be loaded.
        """
        model = self.take(key)
        try:
            yield model
        finally:
            self.give_back(key)

    def take(self, key: str) -> _M:
        """Do what `use` does, until `give_back`."""
        with self._lock:
            if self._is_closed:
                raise EngineClosed("the server is ending")
            berth = self._berths.get(key)
            is_new = berth is None
            if berth is None:
                berth = self._berths[key] = _Berth()
                self._start_reaper()
            if not berth.settled.is_set():
                if self._n_waiting >= self._most_waiting:
                    if is_new:
                        del self._berths[key]
                    raise QueueFull("too many requests wait for models to load: try again later")
                self._n_waiting += 1
            berth.n_users += 1
            is_waiting = not berth.settled.is_set()
        try:
            if is_new:
                self._fill(key, berth)
            berth.settled.wait()
        finally:
            with self._lock:
                self._n_waiting -= is_waiting
                if berth.model is None:
                    berth.n_users -= 1
        if berth.model is None:
            raise berth.error or EngineClosed("the model was closed while it was loaded")
        return berth.model

    def give_back(self, key: str) -> None:
        """End a use."""
        with self._lock:
            berth = self._berths.get(key)
            if berth is not None:
                berth.n_users -= 1
                berth.used_at = time.monotonic()
                self._lock.notify_all()

    def keep(self, key: str) -> None:
        """Load a model now and keep it for good."""
        self._kept.add(key)
        with self.use(key):
            pass

    def loaded(self) -> dict[str, _M]:
        """Return what is loaded."""
        with self._lock:
            return {key: b.model for key, b in self._berths.items() if b.model is not None}

    @property
    def is_loading(self) -> bool:
        """Say whether any model is being loaded."""
        with self._lock:
            return any(not berth.settled.is_set() for berth in self._berths.values())

    def close(self) -> None:
        """Unload everything and lend nothing more."""
        with self._lock:
            self._is_closed = True
            berths = list(self._berths.values())
            self._berths.clear()
            self._lock.notify_all()
        for berth in berths:
            if berth.model is not None:
                berth.model.close()

    def _fill(self, key: str, berth: _Berth[_M]) -> None:
        try:
            with self._one_by_one:
                model = self._loaded_into_room(key)
        except BaseException as error:
            with self._lock:
                berth.error = (
                    error
                    if isinstance(error, LlamaliteError)
                    else EngineClosed("the model could not be loaded")
                )
                if self._berths.get(key) is berth:
                    del self._berths[key]  # so that the next request tries again
            berth.settled.set()
            raise
        with self._lock:
            berth.used_at = time.monotonic()
            is_closed = self._is_closed
            if not is_closed:
                berth.model = model
        if is_closed:
            model.close()
        berth.settled.set()

    def _loaded_into_room(self, key: str) -> _M:
        self._make_room()
        while True:
            try:
                return self._load(key)
            except DoesNotFit:
                if not self._unload_idlest():
                    raise

    def _make_room(self) -> None:
        """Unload what was of no use for longest, waiting for one in use if there is no other."""
        while self._most:
            with self._lock:
                n_loaded = sum(berth.model is not None for berth in self._berths.values())
                if n_loaded < self._most or self._is_closed:
                    return
            if not self._unload_idlest():
                with self._lock:
                    self._lock.wait(_TICK_S)

    def _unload_idlest(self) -> bool:
        with self._lock:
            idle = [k for k, b in self._berths.items() if b.is_idle and k not in self._kept]
            if not idle:
                return False
            key = min(idle, key=lambda k: self._berths[k].used_at)
        return self._unload(key)

    def _unload(self, key: str, unused_since: float | None = None) -> bool:
        with self._lock:
            berth = self._berths.get(key)
            if berth is None or not berth.is_idle:
                return False
            if unused_since is not None and berth.used_at > unused_since:
                return False
            del self._berths[key]
        assert berth.model is not None
        _log.info("unloading %s", key)
        berth.model.close()
        return True

    def _start_reaper(self) -> None:
        if self._reaper is None and self._keep_alive_s >= 0:
            self._reaper = threading.Thread(
                target=self._reap, name="llamalite-keep-alive", daemon=True
            )
            self._reaper.start()

    def _reap(self) -> None:
        while True:
            with self._lock:
                if self._is_closed:
                    return
                self._lock.wait(min(_TICK_S, max(self._keep_alive_s, 0.05)))
                limit = time.monotonic() - self._keep_alive_s
                late = [
                    key
                    for key, berth in self._berths.items()
                    if berth.is_idle and berth.used_at <= limit and key not in self._kept
                ]
            for key in late:
                self._unload(key, limit)
