"""How many texts in company are, token by token, the text alone? Greedy, 64 prompts.

    python benchmarks/bench_identity.py

The engine by layout and reuse, and bare loops by layout, in lockstep, with and without flash
attention; each against its own kind computing one sequence after another. A second table repeats
prompts that continue earlier answers on an engine with a single sequence: cached against fresh.
Not a matter of speed, so others may be busy.
"""

from __future__ import annotations

import argparse
import itertools
import random
from pathlib import Path
from typing import Any

from bare import BareBatch
from peers.prompts import Prompts

from llamalite.config import SamplingConfig
from llamalite.core.ready import ready_library
from llamalite.engine.engine import Engine
from llamalite.engine.request import EngineOptions, GenerationRequest
from llamalite.models.resolve import resolve_model

N_CTX = 512
N_TOGETHER = 16
N_THREADS = 1
Tokens = list[list[int]]


def engine(path: Path, n_parallel: int, **options: Any) -> Engine:
    chosen = EngineOptions(n_parallel, n_queue=64, adapt_threads=False, **options)
    return Engine.load(path, chosen, n_ctx=N_CTX, n_threads=N_THREADS, say=lambda line: None)


def from_engine(path: Path, prompts: Tokens, n_tokens: int, n: int, **options: Any) -> Tokens:
    sampling = SamplingConfig(temperature=0, ignore_eos=True, max_tokens=n_tokens)
    with engine(path, n, **options) as one:
        asked = [one.submit(GenerationRequest(prompt, sampling)) for prompt in prompts]
        return [generation.result().tokens for generation in asked]


def from_bare(path: Path, prompts: Tokens, n_tokens: int, n: int, **options: Any) -> Tokens:
    loop = BareBatch(ready_library(), path, n_seq=n, n_ctx=N_CTX, n_threads=N_THREADS, **options)
    parts = [prompts[start : start + n] for start in range(0, len(prompts), n)]
    found = list(itertools.chain.from_iterable(loop.run(part, n_tokens)[1] for part in parts))
    loop.close()
    return found


def in_company(path: Path, prompts: Tokens, n_tokens: int) -> None:
    print(f"\n| {len(prompts)} prompts, {n_tokens} tokens each | identical to the text alone |")
    print("|---|---|")
    alone = from_engine(path, prompts, n_tokens, 1, reuse="off")
    for unified, reuse in itertools.product((False, True), ("off", "exact", "all")):
        got = from_engine(path, prompts, n_tokens, N_TOGETHER, kv_unified=unified, reuse=reuse)
        layout = "pool" if unified else "streams"
        print(f"| engine, {layout}, reuse {reuse} | {same(got, alone)} |", flush=True)
    for attention in (0, -1):
        alone = from_bare(path, prompts, n_tokens, 1, unified=False, flash_attn=attention)
        for unified in (False, True):
            options = {"unified": unified, "flash_attn": attention}
            got = from_bare(path, prompts, n_tokens, N_TOGETHER, **options)
            layout = "pool" if unified else "streams"
            how = "off" if attention == 0 else "as libllama chooses"
            print(
                f"| bare loop, {layout}, flash attention {how} | {same(got, alone)} |", flush=True
            )


def cached_against_fresh(path: Path, prompts: Tokens, n_tokens: int, n_cases: int) -> None:
    print(f"\n| one sequence, {n_cases} prompts | cached = fresh | tokens from the cache |")
    print("|---|---|---|")
    sampling = SamplingConfig(temperature=0, ignore_eos=True, max_tokens=n_tokens)
    for reuse in ("exact", "all"):
        rng = random.Random(1)
        n_same = n_cached = n_prompt = 0
        with engine(path, 1, reuse=reuse) as cached, engine(path, 1, reuse="off") as fresh:
            last: list[int] = []
            for _ in range(n_cases):
                head = rng.choice([prompts[0], prompts[1], last[:300]])
                prompt = head + rng.choice(prompts)[: rng.randrange(1, 20)]
                request = GenerationRequest(prompt, sampling)
                one, two = cached.submit(request).result(), fresh.submit(request).result()
                n_same += one.tokens == two.tokens
                n_cached += one.usage.cached_tokens
                n_prompt += len(prompt)
                last = prompt + one.tokens
        print(
            f'| reuse="{reuse}" | {n_same} of {n_cases} | {n_cached / n_prompt:.0%} |', flush=True
        )


def same(got: Tokens, alone: Tokens) -> str:
    n_same = sum(one == two for one, two in zip(got, alone, strict=True))
    return f"{n_same} of {len(alone)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2:135m", help="path or name (%(default)s)")
    parser.add_argument("--tokens", type=int, default=32, help="of each answer")
    parser.add_argument("--cases", type=int, default=200)
    given = parser.parse_args()
    path = resolve_model(given.model)
    maker, rng = Prompts(path), random.Random(1)
    prompts = [maker.fresh(rng.randrange(8, 48)) for _ in range(64)]
    print(f"{path.name}, libllama {ready_library().release}")
    in_company(path, prompts, given.tokens)
    cached_against_fresh(path, prompts, 8, given.cases)


if __name__ == "__main__":
    main()
