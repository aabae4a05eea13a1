"""Threads that follow the machine against fixed ones, alone and beside a busy process, in one run.

    python benchmarks/bench_threads.py [--model=smollm2:135m] [--seconds=5] [--rounds=6]

Every contestant generates whole answers (prompt and tokens) for some seconds, in turns there and
back, with a tuner or engine that knows nothing yet in every first turn of a condition. Ratios are
medians of those of each round, since machines become faster and slower. The busy process is a
Python child that spins. Run nothing else beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from llamalite.core.batch import Batch
from llamalite.core.context import Context
from llamalite.core.model import Model
from llamalite.core.ready import ready_library
from llamalite.engine.thread_tuner import ThreadTuner
from llamalite.engine.threads import default_n_threads
from llamalite.models.resolve import resolve_model

CHUNK = 32
"""Prompt tokens a step: what an engine with a budget would take about here."""

Contestant = Callable[[float], tuple[int, float]]
"""Generates answers for so many seconds; returns the number of tokens and the seconds taken."""


class Answers:
    """Whole answers from a loop of its own over a context."""

    def __init__(self, context: Context, options: argparse.Namespace) -> None:
        self.context, self.n_rows = context, options.rows
        self.n_prompt, self.n_tokens = options.prompt, options.tokens
        self.batch = Batch(context.n_batch, context.model.vocab.n_tokens, self.n_rows)
        self.prompt = np.random.default_rng(1).integers(3, 200, self.n_prompt).astype(np.int32)

    def step(self, tuner: ThreadTuner, n_decode: int, n_prefill: int) -> None:
        n_threads = tuner.choose(n_prefill)
        self.context.set_threads(n_threads, n_threads)
        wall, cpu = time.perf_counter(), time.process_time()
        self.context.decode(self.batch)
        self.context.logits(-1)  # waits for the end
        wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
        tuner.observe(n_decode, n_prefill, n_threads, wall_s, cpu_s)

    def run(self, tuner: ThreadTuner, seconds: float) -> tuple[int, float]:
        started, n_done, batch = time.perf_counter(), 0, self.batch
        while True:
            self.context.memory.clear()
            for row in range(self.n_rows):
                for start in range(0, self.n_prompt, CHUNK):
                    part = self.prompt[start : start + CHUNK]
                    batch.clear()
                    batch.extend(part, start, row, outputs="last")
                    self.step(tuner, 0, len(part))
            for position in range(self.n_prompt, self.n_prompt + self.n_tokens):
                batch.clear()
                for row in range(self.n_rows):
                    batch.add(position % 200 + 3, position, [row], output=True)
                self.step(tuner, self.n_rows, 0)
                n_done += self.n_rows
                if time.perf_counter() - started > seconds:
                    return n_done, time.perf_counter() - started


def bare_contestants(
    path: Path, most: int, options: argparse.Namespace, stack: contextlib.ExitStack
) -> Iterator[tuple[str, Callable[[], Contestant]]]:
    """Yield names and what makes each contestant anew."""
    library = ready_library(lambda line: None)
    model = Model(library, path, n_gpu_layers=0)
    stack.callback(model.close)
    context = Context(
        model,
        n_ctx=options.rows * (options.prompt + options.tokens + 8),
        n_batch=512,
        n_seq_max=options.rows,
        flash_attn_type=0,
        kv_unified=False,
    )
    answers = Answers(context, options)
    for name, n_threads, fixed in (
        (f"{most} fixed", most, True),
        ("1 fixed", 1, True),
        ("adaptive", most, False),
    ):

        def make(n_threads: int = n_threads, fixed: bool = fixed) -> Contestant:
            tuner = ThreadTuner(n_threads, fixed=fixed)
            return lambda seconds: answers.run(tuner, seconds)

        yield name, make


def engine_contestants(
    path: Path, most: int, options: argparse.Namespace, stack: contextlib.ExitStack
) -> Iterator[tuple[str, Callable[[], Contestant]]]:
    """Yield the same contests through the engine."""
    from llamalite.config import SamplingConfig
    from llamalite.engine.engine import Engine
    from llamalite.engine.request import EngineOptions, GenerationRequest

    sampling = SamplingConfig(temperature=0, ignore_eos=True, max_tokens=options.tokens)
    rng = np.random.default_rng(1)

    def make(**settings: int) -> Contestant:
        engine = Engine.load(
            path,
            EngineOptions(n_parallel=options.rows),
            say=lambda line: None,
            n_ctx=options.prompt + options.tokens + 8,
            n_gpu_layers=0,
            **settings,
        )
        stack.callback(engine.close)

        def run(seconds: float) -> tuple[int, float]:
            started, n_done = time.perf_counter(), 0
            while (taken := time.perf_counter() - started) < seconds:
                prompts = rng.integers(3, 200, (options.rows, options.prompt)).astype(np.int32)
                generations = [
                    engine.submit(GenerationRequest(prompt, sampling, time_limit_s=seconds - taken))
                    for prompt in prompts
                ]
                n_done += sum(len(each.result().tokens) for each in generations)
            return n_done, taken

        return run

    yield f"{most} fixed", lambda: make(n_threads=most)
    yield "1 fixed", lambda: make(n_threads=1)
    yield "adaptive", make


@contextlib.contextmanager
def busy_process() -> Iterator[None]:
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.5)
        yield
    finally:
        child.kill()
        child.wait()


def measure(
    contestants: list[tuple[str, Callable[[], Contestant]]], seconds: float, rounds: int
) -> dict[str, list[float]]:
    """Return the tokens/s of each, round by round."""
    made = {name: make() for name, make in contestants}
    rates: dict[str, list[float]] = {name: [] for name in made}
    for turn in range(rounds):
        for name in list(made)[:: -1 if turn % 2 else 1]:
            n_tokens, taken_s = made[name](seconds)
            rates[name].append(max(n_tokens, 1) / taken_s)
    return rates


def report(
    what: str, alone: dict[str, list[float]], beside: dict[str, list[float]], most: int
) -> None:
    two = f"{most} fixed"
    print(f"\n### {what}\n\n| threads | alone, tokens/s | beside a busy process, tokens/s |")
    print("|---|---|---|")
    for name in alone:
        medians = statistics.median(alone[name]), statistics.median(beside[name])
        print("| {} | {:.1f} | {:.1f} |".format(name, *medians))
    print()
    for condition, rates, other, least in (
        ("alone", alone, two, 0.97),
        ("beside", beside, "1 fixed", 0.85),
        ("beside", beside, two, 1.8),
    ):
        ratios = [a / b for a, b in zip(rates["adaptive"], rates[other], strict=True)]
        print(
            f"- {condition}, adaptive ÷ {other}: {statistics.median(ratios):.3f} (at least "
            f"{least}), {min(ratios):.3f} to {max(ratios):.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2:135m")
    parser.add_argument("--seconds", type=float, default=5, help="of each turn")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--rows", type=int, default=1, help="answers at once")
    parser.add_argument("--only", choices=("bare", "engine"))
    options = parser.parse_args()
    most = default_n_threads()
    path = resolve_model(options.model)
    print(f"{most} threads at most, load average before: {os.getloadavg()[0]:.2f}")
    for name, contest in (("bare", bare_contestants), ("engine", engine_contestants)):
        if options.only not in (None, name):
            continue
        with contextlib.ExitStack() as stack:
            contestants = list(contest(path, most, options, stack))
            alone = measure(contestants, options.seconds, options.rounds)
            with busy_process():
                beside = measure(contestants, options.seconds, options.rounds)
        what = f"{path.name}, {options.rows} at once, {options.prompt}+{options.tokens} tokens"
        report(f"{what}: {name}", alone, beside, most)


if __name__ == "__main__":
    main()
