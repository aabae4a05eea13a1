"""The real engine in a process of its own: its answers, its deaths, and what they cost."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from support.processes import is_gone

from llamalite.config import SamplingConfig
from llamalite.constraint.spec import Constraint
from llamalite.engine.process.aio import AsyncEngine
from llamalite.engine.process.supervisor import EngineProcess
from llamalite.engine.request import EmbeddingRequest, EngineOptions, GenerationRequest
from llamalite.errors import (
    ConstraintError,
    ContextLengthExceeded,
    EngineCrashed,
    InvalidParameter,
    LlamaliteError,
    ModelLoadError,
)

N_DEATHS = int(os.environ.get("LLAMALITE_TEST_DEATHS", "6"))
"""Twenty take half a minute."""
N_ASKING = 8


@pytest.fixture(scope="module")
def engine(stories: Path) -> Iterator[EngineProcess]:
    options = EngineOptions(n_parallel=4, kv_unified=False, reuse="off")
    with EngineProcess.load(
        stories, options, say=lambda _line: None, n_ctx=256, n_threads=1
    ) as engine:
        yield engine


def greedy(*prompt: int, n: int = 20) -> GenerationRequest:
    return GenerationRequest(prompt, SamplingConfig(temperature=0, max_tokens=n, ignore_eos=True))


def test_it_answers_as_the_engine_does(engine: EngineProcess, stories: Path) -> None:
    assert engine.facts.model == str(stories)
    assert engine.facts.n_parallel == 4
    result = engine.submit(greedy(1)).result()
    assert result.text.lstrip().startswith("Once upon a time")
    assert result.usage.completion_tokens == 20
    assert engine.submit(greedy(1, *result.tokens[:5], n=15)).result().tokens == result.tokens[5:]
    stats = engine.stats()
    assert stats.completion_tokens == 35
    rows = engine.embed(EmbeddingRequest([[1, 5, 6], [1, 9]])).result(30)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1, 1], rtol=1e-5)


def test_errors_cross_as_what_they_are(engine: EngineProcess) -> None:
    with pytest.raises(ContextLengthExceeded) as caught:
        engine.submit(greedy(*[5] * 300))
    assert (caught.value.n_prompt, caught.value.n_ctx) == (300, 256)
    with pytest.raises(InvalidParameter):
        engine.submit(greedy(10_000))
    with pytest.raises(ConstraintError):
        engine.submit(GenerationRequest([1], constraint=Constraint("gbnf", "root ::= (")))
    grammar = SamplingConfig(grammar='root ::= "Lily"', temperature=0)
    result = engine.submit(GenerationRequest([1], grammar)).result()
    assert (result.text, result.finish_reason) == ("Lily", "stop")


def test_what_is_no_model_is_told_by_the_child(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + b"\0" * 100)
    with pytest.raises(LlamaliteError) as caught:
        EngineProcess.load(path, say=lambda _line: None)
    assert not isinstance(caught.value, EngineCrashed | ModelLoadError)
    assert str(path) in str(caught.value)


def test_asyncio_streams(engine: EngineProcess) -> None:
    async def main() -> list[str]:
        async def one(first: int) -> str:
            generation = await AsyncEngine(engine).submit(greedy(1, first))
            return "".join([delta.text async for delta in generation])

        return await asyncio.gather(*(one(first) for first in range(300, 306)))

    alone = [engine.submit(greedy(1, first)).result().text for first in range(300, 306)]
    assert asyncio.run(main()) == alone


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signals")
def test_deaths_under_load(engine: EngineProcess) -> None:
    requests = [greedy(1, 300 + number, n=60) for number in range(N_ASKING)]
    expected = [engine.submit(request).result().tokens for request in requests]
    outcomes: list[str] = []
    stop = threading.Event()

    def ask(number: int) -> None:
        while not stop.is_set():
            try:
                result = engine.submit(requests[number]).result()
                outcomes.append("right" if result.tokens == expected[number] else "wrong")
            except LlamaliteError as error:
                outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=ask, args=[number]) for number in range(N_ASKING)]
    for thread in threads:
        thread.start()
    gaps, pids = [], []
    for number in range(N_DEATHS):
        pid = engine.pid or 0
        pids.append(pid)
        os.kill(pid, (signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV)[number % 3])
        died = time.monotonic()
        longest_answer_s, n_before = 0.0, None
        while n_before is None or outcomes.count("right") == n_before:
            if n_before is None and engine.pid != pid:
                n_before = outcomes.count("right")
            asked = time.monotonic()
            assert asked - died < 30
            assert engine.stats().n_restarts <= number + 1
            longest_answer_s = max(longest_answer_s, time.monotonic() - asked)
            time.sleep(0.01)
        assert longest_answer_s < 1
        gaps.append(time.monotonic() - died)
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    print(f"\nback after {min(gaps):.2f} to {max(gaps):.2f} s; {len(outcomes)} requests: ", end="")
    print({kind: outcomes.count(kind) for kind in set(outcomes)})
    assert set(outcomes) <= {"right", "EngineCrashed"}
    assert engine.stats().n_restarts == N_DEATHS
    assert max(gaps) < 3
    engine.close()
    assert all(is_gone(pid) for pid in pids)
    assert not psutil.Process().children()
