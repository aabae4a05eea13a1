"""What picking one token costs, by path and size of the vocabulary, on synthetic logits.

    python -m pytest benchmarks/bench_picking.py

Needs no model. `native` is the whole vocabulary through libllama's samplers by one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import pytest
from support.shaped_models import write_shaped

from llamalite.config import SamplingConfig
from llamalite.core.candidates import candidates_of
from llamalite.core.context import Context
from llamalite.core.grammar import GrammarMatcher
from llamalite.core.model import Model
from llamalite.core.sampling import build_chain
from llamalite.core.vocab import Vocab
from llamalite.engine.picking import Picker, logprobs_of
from llamalite.engine.request import GenerationRequest
from llamalite.ffi.library import open_library
from llamalite.libs.install import ensure_library

SIZES = (49_152, 262_144)
PATHS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "greedy ignore_eos": {"temperature": 0, "ignore_eos": True},
    "greedy penalties": {"temperature": 0, "repeat_penalty": 1.1},
    "default": {},
    "default penalties": {"repeat_penalty": 1.1},
    "default 50 biases": {"logit_bias": dict.fromkeys(range(50, 100), 1.0)},
    "top_p of all": {"top_k": 0, "min_p": 0.0},
    "min_p of all": {"top_k": 0, "top_p": 1.0},
    "all": {"top_k": 0, "top_p": 1.0, "min_p": 0.0},
    "dry": {"dry_multiplier": 0.8},
}


class Row:
    """One row of logits in place of a context; probabilities fall with the square of the rank."""

    def __init__(self, n_vocab: int) -> None:
        ranks = np.random.default_rng(1).permutation(n_vocab) + 1
        self.row = (-2 * np.log(ranks)).astype(np.float32)

    def logits(self, _row: int) -> Any:
        return self.row


@pytest.fixture(scope="module", params=SIZES)
def vocab(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Vocab]:
    size: int = request.param
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [f"▁{number:x}" for number in range(size - len(tokens))]
    path = tmp_path_factory.mktemp("vocab") / "m.gguf"
    write_shaped(path, "llama", n_embd=32, n_layer=1, n_ff=32, n_vocab=size, tokens=tokens)
    with Model(open_library(ensure_library()), path, vocab_only=True) as model:
        yield model.vocab


def run(benchmark: Any, task: Callable[[], object]) -> None:
    benchmark.pedantic(task, rounds=200, warmup_rounds=20)


@pytest.mark.parametrize("path", PATHS)
def test_picker(benchmark: Any, vocab: Vocab, path: str) -> None:
    request = GenerationRequest([1], SamplingConfig(seed=1, **PATHS[path]))
    picker, context = Picker(vocab, request, 4096), cast(Context, Row(vocab.n_tokens))
    picker.prime(np.arange(300, 364, dtype=np.int32))
    run(benchmark, lambda: picker.pick(context, 0, ()))


@pytest.mark.parametrize("path", ["greedy", "default", "default penalties", "top_p of all"])
def test_native(benchmark: Any, vocab: Vocab, path: str) -> None:
    row = Row(vocab.n_tokens).row
    with build_chain(SamplingConfig(seed=1, **PATHS[path]), vocab, 4096) as chain:
        run(benchmark, lambda: chain.accept(chain.select(row)))


def test_candidates_of_all(benchmark: Any, vocab: Vocab) -> None:
    row = Row(vocab.n_tokens).row
    run(benchmark, lambda: candidates_of(row))


@pytest.mark.parametrize("k", [0, 20])
def test_logprobs(benchmark: Any, vocab: Vocab, k: int) -> None:
    row = Row(vocab.n_tokens).row
    run(benchmark, lambda: logprobs_of(row, 7, k))


@pytest.mark.parametrize("task", ["allows", "mask"])
def test_grammar(benchmark: Any, vocab: Vocab, task: str) -> None:
    row = Row(vocab.n_tokens).row
    with GrammarMatcher(vocab, 'root ::= "\\"" [^"]* "\\""') as matcher:
        if task == "mask":
            run(benchmark, lambda: matcher.mask(row.copy()))
        else:
            run(benchmark, lambda: matcher.allows(7))
