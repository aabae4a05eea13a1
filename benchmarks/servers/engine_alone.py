"""The engine without a server: the same load by direct calls, read from stdin as JSON lines.

python engine_alone.py MODEL N_PARALLEL N_CTX
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from typing import Any

from llamalite.config import SamplingConfig
from llamalite.core.model import Model
from llamalite.core.ready import ready_library
from llamalite.engine.process.supervisor import EngineProcess
from llamalite.engine.request import EngineOptions, GenerationRequest


def main() -> None:
    path, n_parallel, n_ctx = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    vocab = Model(ready_library(None), path, vocab_only=True).vocab
    with EngineProcess.load(path, EngineOptions(n_parallel=n_parallel), n_ctx=n_ctx) as engine:
        print("ready", flush=True)
        for line in sys.stdin:
            print(json.dumps(answer_all(engine, vocab, json.loads(line))), flush=True)


def answer_all(engine: Any, vocab: Any, load: dict[str, Any]) -> dict[str, Any]:
    sampling = SamplingConfig(temperature=0, max_tokens=load["n_tokens"], ignore_eos=True)
    firsts: list[float] = []
    counts: list[int] = []

    def one(prompt: str) -> None:
        started = time.perf_counter()
        request = GenerationRequest(vocab.tokenize(prompt), sampling)
        generation = engine.submit(request)
        n_tokens = 0
        for delta in generation:
            if n_tokens == 0:
                firsts.append(time.perf_counter() - started)
            n_tokens += len(delta.tokens)
        counts.append(n_tokens)

    threads = [threading.Thread(target=one, args=(prompt,)) for prompt in load["prompts"]]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall_s = time.perf_counter() - started
    return {"tokens_per_s": sum(counts) / wall_s, "ttft_s": statistics.median(firsts)}


if __name__ == "__main__":
    main()
