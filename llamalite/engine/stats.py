"""What an engine has done and is doing, in plain numbers.

Owns counting and the distributions of waiting times. Imports the standard library and its sibling
`result`.
"""

from __future__ import annotations

import bisect
import collections
import threading
from dataclasses import dataclass, field
from typing import Any

from llamalite.engine.result import Timings, Usage

BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histograms' buckets, in seconds; a last bucket holds all above."""


@dataclass(frozen=True)
class Histogram:
    """How often which duration came.

    Attributes:
        counts: for each of BOUNDS_S the durations up to it and above the one before; then those
            above all.
        sum_s: all of them together.
    """

    counts: tuple[int, ...] = (0,) * (len(BOUNDS_S) + 1)
    sum_s: float = 0.0

    @property
    def count(self) -> int:
        """Number of durations."""
        return sum(self.counts)


@dataclass(frozen=True)
class EngineStats:
    """An engine at one moment; counts and sums are since its start.

    Attributes:
        n_running: sequences that have a slot.
        n_waiting: sequences that wait for one.
        n_slots: slots there are.
        n_cells_used: cache cells that running and parked sequences name, shared ones once for
            each; n_cells is what there is.
        n_threads: threads of the last decode step.
        finished: requests' answers by finish reason; "error" for those that failed.
        prompt_tokens: tokens of all prompts; cached_tokens of them were not computed anew.
        completion_tokens: tokens generated.
        embedded_tokens: tokens of embedded texts.
        steps: batches computed.
        decode_rows: tokens computed one by one; pure_rows of them in batches of nothing else.
        prefill_rows: tokens computed in chunks: prompts, and what was preempted.
        decode_s: time in batches without chunks; prefill_s in the others.
        largest_batch: most tokens in one batch.
        n_preempted: how often a sequence had to make room.
        queue_s: time from submission to the first computed token, of each answer.
        ttft_s: time from submission to the first token of the answer.
        gaps_s: time between two tokens of an answer.
        n_restarts: how often the engine's process was started anew.
    """

    n_running: int = 0
    n_waiting: int = 0
    n_slots: int = 0
    n_cells: int = 0
    n_cells_used: int = 0
    n_threads: int = 0
    finished: dict[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    embedded_tokens: int = 0
    steps: int = 0
    decode_rows: int = 0
    pure_rows: int = 0
    prefill_rows: int = 0
    decode_s: float = 0.0
    prefill_s: float = 0.0
    largest_batch: int = 0
    n_preempted: int = 0
    queue_s: Histogram = field(default_factory=Histogram)
    ttft_s: Histogram = field(default_factory=Histogram)
    gaps_s: Histogram = field(default_factory=Histogram)
    n_restarts: int = 0

    @property
    def decode_tokens_per_s(self) -> float:
        """Tokens computed over time in batches without prompt tokens."""
        return self.pure_rows / self.decode_s if self.decode_s > 0 else 0.0


class Meter:
    """Counts; `snapshot` may be called from any thread, the rest from the engine thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: collections.Counter[str] = collections.Counter()
        self._finished: collections.Counter[str] = collections.Counter()
        self._seconds = {"prefill_s": 0.0, "decode_s": 0.0}
        self._buckets = {name: _Buckets() for name in ("queue_s", "ttft_s", "gaps_s")}
        self._largest_batch = 0

    def step(self, n_decode: int, n_prefill: int, wall_s: float) -> None:
        """Note a computed batch."""
        with self._lock:
            counts = self._counts
            counts["steps"] += 1
            counts["decode_rows"] += n_decode
            counts["prefill_rows"] += n_prefill
            self._largest_batch = max(self._largest_batch, n_decode + n_prefill)
            if n_prefill:
                self._seconds["prefill_s"] += wall_s
            else:
                counts["pure_rows"] += n_decode
                self._seconds["decode_s"] += wall_s

    def gap(self, seconds: float) -> None:
        """Note the time between two tokens of an answer."""
        with self._lock:
            self._buckets["gaps_s"].add(seconds)

    def finished(self, reason: str, usage: Usage, timings: Timings) -> None:
        """Note an answer's end."""
        with self._lock:
            self._finished[reason] += 1
            self._counts["prompt_tokens"] += usage.prompt_tokens
            self._counts["cached_tokens"] += usage.cached_tokens
            self._counts["completion_tokens"] += usage.completion_tokens
            self._buckets["queue_s"].add(timings.queue_s)
            if timings.ttft_s:
                self._buckets["ttft_s"].add(timings.ttft_s)

    def failed(self) -> None:
        """Note an answer that ended with an error."""
        with self._lock:
            self._finished["error"] += 1

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a count of EngineStats."""
        with self._lock:
            self._counts[name] += amount

    def snapshot(self, **now: int) -> EngineStats:
        """Return everything; `now` is what holds at this moment, by EngineStats' names."""
        with self._lock:
            known: dict[str, Any] = {
                **self._counts,
                **self._seconds,
                **{name: buckets.frozen() for name, buckets in self._buckets.items()},
                **now,
                "finished": dict(self._finished),
                "largest_batch": self._largest_batch,
            }
        return EngineStats(**known)


class _Buckets:
    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum_s = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect.bisect_left(BOUNDS_S, seconds)] += 1
        self._sum_s += seconds

    def frozen(self) -> Histogram:
        return Histogram(tuple(self._counts), self._sum_s)
