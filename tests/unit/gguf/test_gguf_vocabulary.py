"""What a model with the largest vocabularies in use costs to open."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from support.gguf_models import write_vocabulary

from llamalite.gguf import GGUFReader, ModelSummary

N_VOCAB = 262_144


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vocabulary(tmp_path_factory.mktemp("plain") / "m.gguf", N_VOCAB)


@pytest.fixture(scope="module")
def with_merges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("merges") / "m.gguf"
    return write_vocabulary(path, N_VOCAB, merges=True)


def open_and_summarise(path: Path) -> ModelSummary:
    with GGUFReader(path) as reader:
        return reader.summary


def fastest_s(call: Callable[[], object], rounds: int = 15) -> float:
    """Return the shortest of several times: the rest is the machine's other work."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def walk_plainly(content: bytes) -> None:
    """Walk over N_VOCAB strings with nothing but a struct."""
    read_length = struct.Struct("<Q").unpack_from
    pos = 0
    for _ in range(N_VOCAB):
        pos += read_length(content, pos)[0] + 8


def within(limit_s: float, call: Callable[[], object]) -> bool:
    """Say whether a call is as fast as promised for a machine whose plain walk takes 17 ms.

    Slower and busier machines get as much more time as their plain walk takes, measured alongside.
    """
    content = b"".join(struct.pack("<Q", 6) + b"tokens" for _ in range(N_VOCAB))
    for _ in range(10):
        if fastest_s(call) < limit_s * max(1.0, fastest_s(lambda: walk_plainly(content)) / 0.017):
            return True
    return False


def test_opened_and_summarised_in_under_30_ms(plain: Path) -> None:
    summary = open_and_summarise(plain)
    assert (summary.n_vocab, summary.n_tensors, len(summary.layer_bytes)) == (N_VOCAB, 156, 26)
    assert within(0.030, lambda: open_and_summarise(plain))


def test_a_string_costs_at_most_a_tenth_of_a_microsecond(with_merges: Path) -> None:
    assert within(2 * N_VOCAB * 0.1e-6, lambda: open_and_summarise(with_merges))


def test_opened_and_summarised_in_under_10_mb(plain: Path, with_merges: Path) -> None:
    for path in (plain, with_merges):
        tracemalloc.start()
        try:
            open_and_summarise(path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 1_000_000  # ten times better than promised: 8 bytes per 64 strings


def test_any_token_is_near(with_merges: Path) -> None:
    with GGUFReader(with_merges) as reader:
        tokens = reader.metadata["tokenizer.ggml.tokens"]
        everything = list(tokens)
        assert len(everything) == len(tokens) == N_VOCAB
        sample = range(0, N_VOCAB, 997)
        assert [tokens[i] for i in sample] == [everything[i] for i in sample]
        assert tokens[-70:] == everything[-70:]
        assert reader.metadata["tokenizer.ggml.scores"][-1] == -float(N_VOCAB - 1)
        assert within(100e-6, lambda: tokens[N_VOCAB // 2 + 63])
