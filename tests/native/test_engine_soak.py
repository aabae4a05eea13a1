"""The engine under a random load for a while; LLAMALITE_SOAK_S=600 makes it ten minutes."""

from __future__ import annotations

import os
import random
import statistics
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from llamalite.config import SamplingConfig
from llamalite.constraint.spec import Constraint
from llamalite.engine.engine import Engine
from llamalite.engine.request import EmbeddingRequest, EngineOptions, GenerationRequest
from llamalite.errors import RequestError

SECONDS = float(os.environ.get("LLAMALITE_SOAK_S", "30"))
N_CLIENTS = 12
GROWTH_BYTES = 16 << 20
WANTED = (
    "stop", "length", "cancelled", "time_limit", "embedded 2", "QueueFull",
    "ContextLengthExceeded", "InvalidParameter", "ConstraintError", "RequestError",
)  # fmt: skip


class Client(threading.Thread):
    """Asks for all kinds of things, one after another, and counts how they ended."""

    def __init__(self, engine: Engine, seed: int, until: float) -> None:
        super().__init__(name=f"soak-{seed}")
        self.engine, self.until = engine, until
        self.rng = random.Random(seed)
        self.heads = [[self.rng.randrange(300, 500) for _ in range(60)] for _ in range(3)]
        self.ends: Counter[str] = Counter()
        self.n_asked = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while time.monotonic() < self.until:
                self.n_asked += 1
                self.ends[self.ask()] += 1
        except BaseException as error:
            self.failure = error

    def ask(self) -> str:
        rng, engine = self.rng, self.engine
        prompt = rng.choice([*self.heads, []]) + [rng.randrange(300, 500) for _ in range(9)]
        try:
            if rng.random() < 0.1:
                rows = engine.embed(EmbeddingRequest([prompt, prompt[:3]])).result(60)
                return f"embedded {len(rows)}"
            generation = engine.submit(self.request(prompt))
        except RequestError as error:
            time.sleep(0.005)  # as one who was told to try later does
            return type(error).__name__
        quits = rng.random() < 0.3
        try:
            for count, _ in enumerate(iter(lambda: generation.next(60), None)):
                if quits and count >= rng.randrange(6):
                    generation.cancel()
                    quits = False
        except StopIteration:
            pass
        except RequestError as error:
            return type(error).__name__
        reasons = {result.finish_reason for result in generation.so_far()}
        assert generation.done
        return "+".join(sorted(reasons))

    def request(self, prompt: list[int]) -> GenerationRequest:
        rng = self.rng
        more: dict[str, Any] = {}
        sampling: dict[str, Any] = {"max_tokens": rng.randrange(40), "ignore_eos": True}
        kind = rng.randrange(10)
        if kind == 0:
            prompt = [10**6]
        elif kind == 1:
            prompt = prompt * 60
        elif kind == 2:
            more["constraint"] = Constraint("regex", "[a-z ]{1,30}")
            sampling["ignore_eos"] = False
        elif kind == 3:
            more["constraint"] = Constraint("json_schema", '{"type": "nonsense"}')
        elif kind == 4:
            more["n"] = 3
        elif kind == 5:
            more["processors"] = (_broken,)
        elif kind == 6:
            more["time_limit_s"] = 0.01
        elif kind == 7:
            sampling |= {"mirostat": 2, "stop": ("the", "a b")}
        elif kind == 8:
            sampling |= {"repeat_penalty": 1.3, "dry_multiplier": 0.8}
            more["logprobs"] = 3
        return GenerationRequest(prompt, SamplingConfig(**sampling), **more)


def _broken(tokens: Any, logits: Any) -> None:
    raise ValueError("broken on purpose")


@pytest.mark.timeout(SECONDS + 120)
def test_soak(stories: Path) -> None:
    process = psutil.Process()
    n_threads, n_files = threading.active_count(), process.num_fds() if os.name == "posix" else 0
    options = EngineOptions(n_parallel=6, n_queue=4, kv_unified=True, n_cells=256)
    sizes: list[int] = []
    with Engine.load(stories, options, n_ctx=512, n_threads=1, say=lambda line: None) as engine:
        engine.start()
        until = time.monotonic() + SECONDS
        clients = [Client(engine, seed, until) for seed in range(N_CLIENTS)]
        for client in clients:
            client.start()
        while any(client.is_alive() for client in clients):
            time.sleep(SECONDS / 60)
            sizes.append(process.memory_info().rss)
            assert time.monotonic() < until + 60, "a client hangs"
        stats = engine.stats()
        assert engine.drain(30)
    for client in clients:
        assert client.failure is None, client.failure
    ends = sum((client.ends for client in clients), Counter[str]())
    assert sum(ends.values()) == sum(client.n_asked for client in clients)
    assert (stats.n_running, stats.n_waiting) == (0, 0)
    for wanted in WANTED:
        assert any(wanted in end for end in ends), (wanted, ends)
    assert stats.n_preempted > 0
    warm, late = sizes[len(sizes) // 3 : len(sizes) // 2], sizes[-len(sizes) // 6 :]
    growth = statistics.median(late) - statistics.median(warm)
    print(f"{sum(ends.values())} requests {dict(ends)}; {stats.steps} steps; "
          f"resident size grew by {growth / (1 << 20):.1f} MiB")  # fmt: skip
    assert growth < GROWTH_BYTES
    assert threading.active_count() == n_threads
    if os.name == "posix":
        assert process.num_fds() <= n_files + 1
