"""The engine against bare ctypes loops: same library, model, threads and process, in turns.

pytest benchmarks/bench_engine.py -s
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from peers.bare_peer import BarePeer
from peers.llamalite_peer import LlamalitePeer
from peers.measures import decode_rate
from peers.prompts import text

from llamalite.core.model import Model
from llamalite.core.ready import ready_library
from llamalite.engine.threads import default_n_threads

# Many short turns, because the speed of machines drifts.
ROUNDS = {1: 40, 4: 16, 16: 12}
N_TOKENS = 64
LAYOUTS = {"streams": False, "pool": True}


class Field:
    """The engine and the two bare loops, each with its own copy of the model."""

    def __init__(self, path: Path, n_parallel: int) -> None:
        job: dict[str, Any] = {
            "model": str(path),
            "n_parallel": n_parallel,
            "n_ctx": 512,
            "n_threads": default_n_threads(),
        }
        vocab = Model(ready_library(), path, vocab_only=True).vocab
        prompts = [vocab.tokenize(text(seed, 8))[:8] for seed in range(n_parallel)]
        requests = [{"prompt": prompt, "n_tokens": N_TOKENS} for prompt in prompts]
        self.load = {"requests": requests}
        self.engine = LlamalitePeer({**job, "options": {"reuse": "off"}})
        self.bare = {
            name: BarePeer({**job, "options": {"unified": unified, "flash_attn": 0}})
            for name, unified in LAYOUTS.items()
            if n_parallel > 1 or not unified  # one sequence is the same in either
        }
        self.peers = {"engine": self.engine, **self.bare}

    def rates(self) -> dict[str, list[float]]:
        """Return the decode rates of all, in turns, after one turn that doesn't count."""
        found: dict[str, list[float]] = {name: [] for name in self.peers}
        for turn in range(ROUNDS[len(self.load["requests"])] + 1):
            order = list(self.peers)
            for name in order[:: -1 if turn % 2 else 1]:
                rate = decode_rate(self.peers[name].replay(self.load))
                if turn:
                    found[name].append(rate)
        return found

    def close(self) -> None:
        for peer in self.peers.values():
            peer.close()


@pytest.fixture(params=[1, 4, 16])
def field(request: pytest.FixtureRequest, smollm2: Path) -> Iterator[Field]:
    field = Field(smollm2, request.param)
    yield field
    field.close()


@pytest.mark.timeout(1800)
def test_decode_ratio(field: Field) -> None:
    n_parallel = len(field.load["requests"])
    rates = field.rates()
    medians = {name: statistics.median(found) for name, found in rates.items()}
    best = max(field.bare, key=medians.__getitem__)
    ratios = [ours / bare for ours, bare in zip(rates["engine"], rates[best], strict=True)]
    ratio = statistics.median(ratios)
    print(
        f"\n{n_parallel} at once: engine {medians['engine']:.0f} tokens/s, bare loop "
        + ", ".join(f"{name} {medians[name]:.0f}" for name in field.bare)
        + f"; {ratio:.3f} of the better ({best}), median of {len(ratios)} pairs "
        + f"({min(ratios):.3f} to {max(ratios):.3f})"
    )
    assert ratio >= (0.97 if n_parallel == 1 else 0.95)
