"""Opening GGUF headers: llamalite against PyPI's gguf, on a generated 262,144-token vocabulary.

    pytest benchmarks/bench_gguf.py

`gguf` makes numpy views of a header's every string and number when it opens a file. It gets one
round per measurement, as that takes tens of seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest
from support.gguf_models import write_vocabulary

from llamalite.gguf import GGUFReader, ModelSummary

N_VOCAB = 262_144


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vocabulary(tmp_path_factory.mktemp("tokens") / "m.gguf", N_VOCAB)


@pytest.fixture(scope="module")
def model_with_merges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vocabulary(tmp_path_factory.mktemp("merges") / "m.gguf", N_VOCAB, merges=True)


def summarise(path: Path) -> ModelSummary:
    with GGUFReader(path) as reader:
        return reader.summary


def all_tokens(path: Path) -> list[str]:
    with GGUFReader(path) as reader:
        return list(reader.metadata["tokenizer.ggml.tokens"])


def all_tokens_of_oracle(path: Path) -> Any:
    return gguf.GGUFReader(path).fields["tokenizer.ggml.tokens"].contents()


@pytest.mark.benchmark(group="open")
def test_open_llamalite(benchmark: Any, model: Path) -> None:
    summary = benchmark.pedantic(summarise, args=(model,), rounds=20, warmup_rounds=1)
    assert summary.n_vocab == N_VOCAB


@pytest.mark.benchmark(group="open")
def test_open_llamalite_with_as_many_merges(benchmark: Any, model_with_merges: Path) -> None:
    summary = benchmark.pedantic(summarise, args=(model_with_merges,), rounds=20, warmup_rounds=1)
    assert summary.n_vocab == N_VOCAB


@pytest.mark.benchmark(group="open")
def test_open_pypi_gguf(benchmark: Any, model: Path) -> None:
    reader = benchmark.pedantic(gguf.GGUFReader, args=(model,), rounds=1)
    assert len(reader.tensors) == 156


@pytest.mark.benchmark(group="open and read every token")
def test_read_tokens_llamalite(benchmark: Any, model: Path) -> None:
    tokens = benchmark.pedantic(all_tokens, args=(model,), rounds=5, warmup_rounds=1)
    assert len(tokens) == N_VOCAB


@pytest.mark.benchmark(group="open and read every token")
def test_read_tokens_pypi_gguf(benchmark: Any, model: Path) -> None:
    tokens = benchmark.pedantic(all_tokens_of_oracle, args=(model,), rounds=1)
    assert len(tokens) == N_VOCAB
