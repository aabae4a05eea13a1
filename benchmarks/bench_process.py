"""What a process of its own costs: tokens per second and time to the first token, with and without.

    python benchmarks/bench_process.py MODEL [--threads N] [--tokens N]

Both engines compute the same requests, greedy, one after the other; the best of three runs counts.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Any

from llamalite.config import SamplingConfig
from llamalite.engine.engine import Engine
from llamalite.engine.process.supervisor import EngineProcess
from llamalite.engine.request import EngineOptions, GenerationRequest


def measure(engine: Any, n_requests: int, n_tokens: int) -> tuple[float, float]:
    """Return tokens per second, and the median milliseconds from submission to the first token."""
    sampling = SamplingConfig(temperature=0, max_tokens=n_tokens, ignore_eos=True)
    started = time.perf_counter()
    running = [
        engine.submit(GenerationRequest([1, 300 + number], sampling))
        for number in range(n_requests)
    ]
    results = [generation.result() for generation in running]
    wall_s = time.perf_counter() - started
    return n_requests * n_tokens / wall_s, 1000 * median(r.timings.ttft_s for r in results)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128)
    args = parser.parse_args()
    options = EngineOptions(n_parallel=16, reuse="off")
    best: dict[tuple[str, int], tuple[float, float]] = {}
    for name, kind in (("in process", Engine), ("EngineProcess", EngineProcess)):
        engine: Any = kind.load(
            args.model, options, say=lambda _line: None, n_ctx=512, n_threads=args.threads
        )
        if isinstance(engine, Engine):
            engine.start()
        for n_requests in (1, 4, 16):
            runs = [measure(engine, n_requests, args.tokens) for _ in range(3)]
            best[name, n_requests] = max(runs)
        engine.close()
    print("| requests | in process | EngineProcess | ratio | first token |")
    print("|---|---|---|---|---|")
    for n_requests in (1, 4, 16):
        (ours, first), (other, other_first) = (
            best[name, n_requests] for name in ("in process", "EngineProcess")
        )
        print(
            f"| {n_requests} | {ours:.0f} tokens/s | {other:.0f} | {other / ours:.3f} "
            f"| {first:.1f} → {other_first:.1f} ms |"
        )


if __name__ == "__main__":
    main()
