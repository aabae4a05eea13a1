"""The texts to embed that wait, and how many of them go into a step.

Owns their order and their share of the time. Imports the standard library, `llamalite.errors` and
its siblings.
"""

from __future__ import annotations

import logging
import time
from bisect import insort
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from llamalite.engine.cost import StepCost
from llamalite.engine.embedding import Embedder, EmbeddingJob
from llamalite.errors import EngineError, LlamaliteError

if TYPE_CHECKING:
    from llamalite.engine.loading import Loaded
    from llamalite.engine.stats import Meter

_log = logging.getLogger("llamalite.engine")


class EmbeddingQueue:
    """Computes embeddings a batch at a time; one thread.

    Args:
        loaded: the model.
        budget_s: seconds a batch may take while others wait for their next token.
        meter: counts.
        deliver: takes each job that has ended, with its embeddings or the error.
    """

    def __init__(
        self,
        loaded: Loaded,
        budget_s: float,
        meter: Meter,
        deliver: Callable[[EmbeddingJob, Any], None],
    ) -> None:
        self._loaded, self._budget_s, self._meter = loaded, budget_s, meter
        self._deliver = deliver
        self._jobs: list[EmbeddingJob] = []  # higher priorities first, equal ones as they came
        self._embedders: dict[str | None, Embedder] = {}
        self._cost = StepCost()

    def add(self, job: EmbeddingJob) -> None:
        """Let a job wait; nothing happens if it does."""
        if job not in self._jobs:
            insort(self._jobs, job, key=lambda other: -other.request.priority)

    def cancel(self, ids: Collection[int]) -> None:
        """End the jobs with those numbers, with an error."""
        for job in self._jobs:
            if job.id in ids:
                job.fail(EngineError("the request was cancelled"))
        self._end_done()

    def fail(self, error: LlamaliteError) -> None:
        """End all jobs with an error."""
        for job in self._jobs:
            job.fail(error)
        self._end_done()

    def step(self, *, is_hurried: bool) -> bool:
        """Compute one batch; False if there are no texts.

        Args:
            is_hurried: whether somebody waits for a next token meanwhile.
        """
        if not self._jobs:
            return False
        first = self._jobs[0]
        pooling = first.request.pooling
        jobs = [job for job in self._jobs if job.request.pooling == pooling]
        try:
            if pooling not in self._embedders:
                self._embedders[pooling] = Embedder(self._loaded, pooling)
            started = time.perf_counter()
            n_tokens = self._embedders[pooling].advance(
                jobs, self._is_in_time if is_hurried else None
            )
            self._cost.observe((), [(n_tokens, 0)], time.perf_counter() - started)
            self._meter.count("embedded_tokens", n_tokens)
        except LlamaliteError as error:
            first.fail(error)
        except Exception as error:
            _log.exception("embedding failed")
            first.fail(EngineError(f"embedding failed: {type(error).__name__}: {error}"))
        self._end_done()
        return True

    def _is_in_time(self, n_tokens: int) -> bool:
        return self._cost.predict((), [(n_tokens, 0)]) <= self._budget_s

    def _end_done(self) -> None:
        for job in [job for job in self._jobs if job.done]:
            self._deliver(job, job.outcome())
            self._jobs.remove(job)
