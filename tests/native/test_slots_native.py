"""Cached answers equal fresh ones, on every kind of memory and in both layouts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny_models import KINDS, N_VOCAB, write_tiny

from llamalite.core.batch import Batch
from llamalite.core.context import Context
from llamalite.core.model import Model
from llamalite.engine.slots import Lease, SlotMemory, SlotTable
from llamalite.ffi.library import Library

N_SLOTS, N_CTX = 4, 512


def next_chunk(lease: Lease, n: int) -> np.ndarray:
    """Return the next n tokens of a prompt, or one less where that would leave a single one."""
    until = min(len(lease.prompt), lease.stop_at or N_CTX)
    end = min(lease.n_computed + n, until)
    return lease.prompt[lease.n_computed : end - (until - end == 1)]


@dataclass
class Answer:
    """A prompt on its way, greedily continued."""

    lease: Lease
    n: int
    first: np.ndarray | None = None
    tokens: list[int] = field(default_factory=list)


class Greedy:
    """The plainest engine: a batch for each lease in turn, so that batches are as for one alone."""

    def __init__(
        self,
        model: Model,
        *,
        unified: bool,
        n_slots: int = N_SLOTS,
        swa_full: bool = False,
        **how: Any,
    ) -> None:
        self.context = Context(
            model,
            n_ctx=N_CTX * n_slots,
            n_seq_max=n_slots,
            kv_unified=unified,
            swa_full=swa_full,
            flash_attn_type=0,
            n_threads=1,
            n_threads_batch=1,
            n_ubatch=64,
        )
        self.table = SlotTable(SlotMemory(self.context), n_slots, **how)
        self._batch = Batch(self.context.n_batch, model.vocab.n_tokens, n_slots)

    def begin(self, prompt: list[int], n: int) -> Answer:
        lease = self.table.acquire(np.array(prompt, np.int32), "")
        assert lease is not None
        return Answer(lease, n)

    def step(self, answer: Answer, n_chunk: int = 200) -> bool:
        """Compute a chunk or a token; False once the answer has ended."""
        lease = answer.lease
        if lease.n_computed < len(lease.prompt):
            tokens, decoded = next_chunk(lease, n_chunk), False
        else:
            tokens, decoded = np.array(answer.tokens[-1:], np.int32), True
        self._batch.clear()
        self._batch.extend(tokens, lease.n_computed, lease.seq_id, outputs="last")
        self.context.decode(self._batch)
        self.table.advance(lease, tokens, decoded=decoded)
        if lease.n_computed >= len(lease.prompt):
            logits = self.context.logits()
            if answer.first is None:
                answer.first = logits.copy()
            answer.tokens.append(int(logits.argmax()))
        if len(answer.tokens) < answer.n:
            return True
        self.table.release(lease)
        return False

    def step_together(self, leases: list[Lease], texts: np.ndarray) -> dict[int, np.ndarray]:
        """Compute a chunk or token of each lease in one batch, and return rows by slot."""
        self._batch.clear()
        work = []
        for lease, text in zip(leases, texts, strict=True):
            in_prompt = lease.n_computed < len(lease.prompt)
            tokens = text[lease.n_computed : lease.n_computed + 1]
            if in_prompt:
                tokens = next_chunk(lease, 16)
            if len(tokens) and not lease.is_waiting:
                self._batch.extend(tokens, lease.n_computed, lease.seq_id, outputs="last")
                work.append((lease, tokens, not in_prompt, self._batch.n_tokens - 1))
        self.context.decode(self._batch)
        rows = {each[0].seq_id: self.context.logits(each[-1]).copy() for each in work}
        for lease, tokens, decoded, _ in work:
            self.table.advance(lease, tokens, decoded=decoded)
        return rows

    def run(self, prompt: list[int], n: int) -> Answer:
        answer = self.begin(prompt, n)
        while self.step(answer):
            pass
        return answer


@pytest.fixture(scope="module", params=KINDS)
def tiny(
    request: pytest.FixtureRequest, library: Library, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Model]:
    path = write_tiny(tmp_path_factory.mktemp("tiny") / "model.gguf", request.param)
    with Model(library, path) as model:
        yield model


@pytest.fixture(scope="module")
def fresh(tiny: Model) -> Any:
    """A function that answers from an empty memory."""
    alone = Greedy(tiny, unified=True, n_slots=1, reuse="off")
    known: dict[tuple[int, ...], Answer] = {}

    def answer(prompt: list[int], n: int) -> Answer:
        if (*prompt, n) not in known:
            known[(*prompt, n)] = alone.run(prompt, n)
        return known[(*prompt, n)]

    return answer


def conversations(seed: int, count: int) -> Iterator[tuple[list[int], int]]:
    """Prompts with common beginnings, next turns, repetitions, and lengths of their answers."""
    rng = np.random.default_rng(seed)
    stems = [rng.integers(0, N_VOCAB, 90).tolist() for _ in range(2)]
    said: list[list[int]] = []
    for _ in range(count):
        tail = rng.integers(0, N_VOCAB, int(rng.integers(2, 40))).tolist()
        kind = rng.integers(0, 4)
        if said and kind == 0:
            prompt = said[int(rng.integers(len(said)))]
        elif said and kind == 1:
            prompt = [*said[int(rng.integers(len(said)))], *tail]
        else:
            prompt = [*stems[int(rng.integers(2))][: int(rng.integers(20, 90))], *tail]
        n = int(rng.choice([2, 12, 60]))
        said.append(prompt)
        yield prompt, n


def is_alike(answer: Answer, fresh: Answer, unified: bool) -> bool:
    """Compare: bit by bit with streams.

    In a pool cells lie between those of others and sums are rounded differently, cached or not.
    """
    assert answer.first is not None
    assert fresh.first is not None
    if unified:
        return bool(np.abs(answer.first - fresh.first).max() < 0.01)
    return np.array_equal(answer.first, fresh.first) and answer.tokens == fresh.tokens


@pytest.mark.parametrize("unified", [True, False], ids=["pool", "streams"])
def test_one_after_another(tiny: Model, fresh: Any, unified: bool) -> None:
    engine = Greedy(tiny, unified=unified, reuse="exact")
    n_cached = 0
    for prompt, n in conversations(1, 16):
        answer = engine.run(prompt, n)
        assert is_alike(answer, fresh(prompt, n), unified), (len(prompt), answer.lease.n_cached)
        n_cached += answer.lease.n_cached
        said = [*prompt, *answer.tokens, 1, 2, 3]
        assert is_alike(engine.run(said, 4), fresh(said, 4), unified)
    assert n_cached > 300


@pytest.mark.parametrize("unified", [True, False], ids=["pool", "streams"])
def test_at_once(tiny: Model, fresh: Any, unified: bool) -> None:
    engine = Greedy(tiny, unified=unified, reuse="exact")
    stem = np.random.default_rng(3).integers(0, N_VOCAB, 150).tolist()
    for repeat in range(2):
        prompts = [[repeat, *stem, *[tail] * 5] for tail in range(N_SLOTS)]
        answers = [engine.begin(prompt, 40) for prompt in prompts]
        assert [answer.lease.is_waiting for answer in answers] == [False, True, True, True]
        open_ = list(answers)
        while open_:
            open_ = [a for a in open_ if a.lease.is_waiting or engine.step(a, 50)]
        assert [answer.lease.n_cached for answer in answers] == [0, 151, 151, 151]
        for prompt, answer in zip(prompts, answers, strict=True):
            assert is_alike(answer, fresh(prompt, 40), unified)


@pytest.mark.parametrize("unified", [True, False], ids=["pool", "streams"])
def test_in_one_batch(tiny: Model, unified: bool) -> None:
    """All sequences in each batch, with given answers; rounding differs, contents must not."""
    engine = Greedy(tiny, unified=unified)
    alone = Greedy(tiny, unified=True, n_slots=1, reuse="off")
    texts = np.random.default_rng(5).integers(0, N_VOCAB, (N_SLOTS, 120), np.int32)
    texts[:, :60] = texts[0, :60]
    leases = [engine.table.acquire(text[:70], "") for text in texts]
    last: dict[int, np.ndarray] = {}
    while min(lease.n_computed for lease in leases) < 120:
        last.update(engine.step_together(leases, texts))
    for text, lease in zip(texts, leases, strict=True):
        answer = alone.run(text.tolist(), 1)
        assert np.abs(last[lease.seq_id] - answer.first).max() < 0.05


def test_full_windows(library: Library, tmp_path: Path) -> None:
    """As libllama makes them by default: cells of a window stay as long as there is room."""
    with Model(library, write_tiny(tmp_path / "model.gguf", "sliding")) as model:
        alone = Greedy(model, unified=True, n_slots=1, swa_full=True, reuse="off")
        for unified in (True, False):
            engine = Greedy(model, unified=unified, swa_full=True, reuse="exact")
            cached = []
            for prompt, n in conversations(1, 8):
                answer = engine.run(prompt, n)
                assert is_alike(answer, alone.run(prompt, n), unified)
                cached.append(answer.lease.n_cached)
            assert sum(cached) > 200
            assert engine.table.n_snapshot_bytes == 0


@pytest.mark.parametrize("unified", [True, False], ids=["pool", "streams"])
def test_a_beginning_in_common_is_computed_twice_at_most(tiny: Model, unified: bool) -> None:
    engine = Greedy(tiny, unified=unified)
    stem = [5, 6, 7, 8] * 20
    cached = [engine.run([*stem, *[tail] * 30], 120).lease.n_cached for tail in (1, 2, 3, 4)]
    if tiny.is_recurrent or tiny.is_hybrid:
        assert cached == [0, 0, 80, 80]
    elif tiny.n_swa:  # a window can be cut until its cells are needed
        assert cached.count(80) >= 2
    else:
        assert cached == [0, 80, 80, 80]
