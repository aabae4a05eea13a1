from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from llamalite.engine import embedding_queue
from llamalite.engine.embedding_queue import EmbeddingQueue
from llamalite.engine.request import EmbeddingRequest
from llamalite.engine.stats import Meter
from llamalite.errors import EngineError, InvalidParameter

S_PER_TOKEN = 0.0005


class FakeEmbedder:
    """Takes a while for each token."""

    def __init__(self, *_: Any) -> None:
        self.sizes: list[int] = []

    def advance(self, jobs: Sequence[Any], is_in_time: Callable[[int], bool] | None = None) -> int:
        n = 0
        for job in jobs:
            for text in job.texts[len(job.rows) :]:
                if n and is_in_time is not None and not is_in_time(n + len(text)):
                    break
                n += len(text)
                job.rows.append(np.ones(2, np.float32))
            if not job.done:
                break
        self.sizes.append(n)
        time.sleep(n * S_PER_TOKEN)
        return n


class Job:
    def __init__(self, number: int, n_texts: int, priority: int = 0) -> None:
        self.id = number
        self.request = EmbeddingRequest([], priority=priority)
        self.texts = [[1] * 10] * n_texts
        self.rows: list[Any] = []
        self.error: Any = None

    def fail(self, error: Any) -> None:
        self.error = error

    @property
    def done(self) -> bool:
        return self.error is not None or len(self.rows) == len(self.texts)

    def outcome(self) -> Any:
        return len(self.rows) if self.error is None else self.error


class Bench:
    def __init__(self) -> None:
        self.ended: list[tuple[int, Any]] = []
        loaded: Any = SimpleNamespace()
        self.queue = EmbeddingQueue(
            loaded, 0.02, Meter(), lambda job, item: self.ended.append((job.id, item))
        )

    def add(self, *arguments: int) -> None:
        job: Any = Job(*arguments)
        self.queue.add(job)
        self.queue.add(job)

    @property
    def embedder(self) -> Any:
        return self.queue._embedders[None]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(embedding_queue, "Embedder", FakeEmbedder)
    return Bench()


def test_higher_priorities_go_first_and_equal_ones_in_order_of_arrival(bench: Bench) -> None:
    for number, priority in enumerate([0, 1, 0, 1]):
        bench.add(number, 1, priority)
    while bench.queue.step(is_hurried=True):
        pass
    assert bench.ended == [(1, 1), (3, 1), (0, 1), (2, 1)]


def test_a_batch_takes_its_share_of_the_time_while_others_wait(bench: Bench) -> None:
    bench.add(0, 100)
    for _ in range(12):
        bench.queue.step(is_hurried=True)
    sizes = bench.embedder.sizes
    assert min(sizes) >= 10  # a text at least
    assert max(sizes) <= 100
    assert sizes[-1] >= 20
    bench.queue.step(is_hurried=False)
    assert bench.ended == [(0, 100)]


def test_a_cancelled_one_ends_with_an_error(bench: Bench) -> None:
    bench.add(4, 1)
    bench.add(5, 1)
    bench.queue.cancel({5, 6})
    ((number, error),) = bench.ended
    assert number == 5
    assert isinstance(error, EngineError)
    assert str(error) == "the request was cancelled"
    assert bench.queue.step(is_hurried=False)
    assert not bench.queue.step(is_hurried=False)


def test_priorities_are_checked() -> None:
    for bad in (2**31, 1.5, True, "high"):
        with pytest.raises(InvalidParameter, match="priority"):
            EmbeddingRequest([], priority=bad)  # type: ignore[arg-type]
