"""LLM.stream against a bare ctypes loop: same library, model, threads and process, in turns.

pytest benchmarks/bench_decode.py -s
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bare import BareLoop
from pytest_benchmark.fixture import BenchmarkFixture

from llamalite import LLM, SamplingConfig
from llamalite.engine.threads import default_n_threads

N_CTX = 1024
ROUNDS = 11
GREEDY = SamplingConfig(temperature=0, ignore_eos=False)


class Pair:
    """The two contestants on one model."""

    def __init__(self, path: Path, prompt: str, n_tokens: int) -> None:
        threads = default_n_threads()
        self.llm = LLM(path, n_ctx=N_CTX, n_threads=threads, say=lambda line: None)
        self.bare = BareLoop(self.llm.library, path, N_CTX, threads)
        self.prompt = self.llm.tokenize(prompt)
        self.n_tokens = n_tokens

    def run_bare(self) -> tuple[float, float, list[int]]:
        return self.bare.run(self.prompt, self.n_tokens)

    def run_llm(self) -> tuple[float, float, list[int]]:
        stream = self.llm.stream(self.prompt, GREEDY, max_tokens=self.n_tokens)
        for _ in stream:
            pass
        result = stream.result
        return result.timings.ttft_s, result.timings.decode_s, result.tokens

    def close(self) -> None:
        self.bare.close()
        self.llm.close()


@pytest.fixture
def smollm2_pair(smollm2: Path) -> Iterator[Pair]:
    prompt = "<|im_start|>user\nWrite a long story.<|im_end|>\n<|im_start|>assistant\n"
    pair = Pair(smollm2, prompt, 128)
    yield pair
    pair.close()


@pytest.fixture
def stories_pair(stories: Path) -> Iterator[Pair]:
    pair = Pair(stories, "Once upon a time", 256)
    yield pair
    pair.close()


def compare(pair: Pair, name: str) -> float:
    """Run both in turns and return the median ratio of their decode rates (1 = equal)."""
    assert pair.run_bare()[2] == pair.run_llm()[2]
    ratios, prefill, rates = [], [], []
    for turn in range(ROUNDS):
        order: list[Callable[[], tuple[float, float, list[int]]]] = [pair.run_bare, pair.run_llm]
        if turn % 2:
            order.reverse()
        first, second = order[0](), order[1]()
        bare, ours = (second, first) if turn % 2 else (first, second)
        ratios.append(bare[1] / ours[1])
        prefill.append(bare[0] / ours[0])
        rates.append((pair.n_tokens - 1) / ours[1])
    ratio = statistics.median(ratios)
    print(
        f"\n{name}: LLM.stream decodes {statistics.median(rates):.0f} tokens/s, "
        f"{ratio:.3f} of the bare loop (min {min(ratios):.3f}, max {max(ratios):.3f}, "
        f"{ROUNDS} pairs); time to first token {statistics.median(prefill):.3f} of it"
    )
    return ratio


def test_decode_ratio_smollm2(smollm2_pair: Pair) -> None:
    assert compare(smollm2_pair, "SmolLM2-135M Q4_1") >= 0.97


def test_decode_ratio_stories260k(stories_pair: Pair) -> None:
    # 250 µs a step: this shows what Python costs, so no bar is set but the one below.
    assert compare(stories_pair, "stories260K F32") >= 0.7


@pytest.mark.parametrize("who", ["run_bare", "run_llm"])
def test_generate_smollm2(benchmark: BenchmarkFixture, smollm2_pair: Pair, who: str) -> None:
    benchmark.group = "SmolLM2: prefill and 128 tokens"
    benchmark.pedantic(getattr(smollm2_pair, who), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("who", ["run_bare", "run_llm"])
def test_generate_stories(benchmark: BenchmarkFixture, stories_pair: Pair, who: str) -> None:
    benchmark.group = "stories260K: prefill and 256 tokens"
    benchmark.pedantic(getattr(stories_pair, who), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("who", ["run_bare", "run_llm"])
def test_prefill_smollm2(benchmark: BenchmarkFixture, smollm2_pair: Pair, who: str) -> None:
    benchmark.group = "SmolLM2: prefill of 800 tokens"
    smollm2_pair.prompt = (smollm2_pair.prompt * 60)[:800]
    smollm2_pair.n_tokens = 1
    benchmark.pedantic(getattr(smollm2_pair, who), rounds=5, warmup_rounds=1)
