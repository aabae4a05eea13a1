"""Replays a load on one peer and notes when each token came; standard library alone.

A load is {"after": int, "requests": [{"prompt": token ids, "n_tokens": int, "background": bool}]}.
Background requests start at once and run until all others have ended; the others start when every
background request has `after` tokens. Each request waits in a thread of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

OnTokens = Callable[[int], bool]
"""Takes how many tokens have just come; True = no more are wanted."""


class Peer:
    """What is measured. Subclasses load a model when made and generate, greedily, past any end."""

    def generate(self, prompt: list[int], n_tokens: int, on_tokens: OnTokens) -> dict[str, Any]:
        """Generate and return {"n_evaluated": prompt tokens computed}; called by many threads."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """Say what was loaded: at least its version."""
        raise NotImplementedError

    def replay(self, load: dict[str, Any]) -> list[dict[str, Any]]:
        """Run a load and return for each request when it was sent, when tokens came, and counts."""
        return _Replay(self, load).run()


class _Replay:
    def __init__(self, peer: Peer, load: dict[str, Any]) -> None:
        self._peer = peer
        self._after = load.get("after", 0)
        self._lock = threading.Lock()
        self._requests = load["requests"]
        self._records: list[dict[str, Any]] = [{"times": []} for _ in self._requests]
        self._n_unready = sum(1 for request in self._requests if request.get("background"))
        self._n_foreground = len(self._requests) - self._n_unready
        self._go = threading.Event()
        self._error: BaseException | None = None
        if not self._n_unready:
            self._go.set()

    def run(self) -> list[dict[str, Any]]:
        threads = [
            threading.Thread(target=self._one, args=pair)
            for pair in zip(self._requests, self._records, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._error is not None:
            raise self._error
        return self._records

    def _one(self, request: dict[str, Any], record: dict[str, Any]) -> None:
        background, times = request.get("background", False), record["times"]

        def on_tokens(count: int) -> bool:
            before = len(times)
            times.extend([time.perf_counter()] * count)
            if background and before < self._after <= len(times):
                self._ready()
            return background and not self._n_foreground

        try:
            if not background:
                self._go.wait()
            record["sent"] = time.perf_counter()
            record.update(self._peer.generate(request["prompt"], request["n_tokens"], on_tokens))
        except BaseException as error:
            self._error = error
        finally:
            if background and len(times) < self._after:
                self._ready()
            if not background:
                with self._lock:
                    self._n_foreground -= 1

    def _ready(self) -> None:
        with self._lock:
            self._n_unready -= 1
            if not self._n_unready:
                self._go.set()
