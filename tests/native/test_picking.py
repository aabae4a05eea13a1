"""Tokens are picked as libllama's samplers would from the whole vocabulary, only sooner."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from llamalite.config import SamplingConfig
from llamalite.core.candidates import candidates_of
from llamalite.core.context import Context
from llamalite.core.model import Model
from llamalite.core.sampling import build_chain
from llamalite.core.vocab import Vocab
from llamalite.engine.picking import Picker, Unsatisfiable, logprobs_of
from llamalite.engine.request import GenerationRequest
from llamalite.errors import FatalDecode, InvalidParameter, RequestError
from llamalite.ffi.library import Library

N_CTX = 512
Row = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def vocab(library: Library, stories: Path) -> Iterator[Vocab]:
    with Model(library, stories, vocab_only=True) as model:
        yield model.vocab


@pytest.fixture(scope="module")
def large(library: Library, smollm2: Path) -> Iterator[Vocab]:
    with Model(library, smollm2, vocab_only=True) as model:
        yield model.vocab


class Rows:
    """Logits without a model; takes the place of a context."""

    def __init__(self, logits: Row) -> None:
        self.row = logits

    def logits(self, _row: int) -> Row:
        return self.row


def rows(vocab: Vocab, n: int, seed: int = 0) -> list[Row]:
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal(vocab.n_tokens) * 3).astype(np.float32) for _ in range(n)]


def pick(picker: Picker, row: Row, tokens: Sequence[int] = (1,)) -> int:
    return picker.pick(cast(Context, Rows(row)), 0, tokens).token


def picks(picker: Picker, given: list[Row]) -> list[int]:
    return [pick(picker, row) for row in given]


def picker_of(vocab: Vocab, index: int = 0, matcher: Any = None, **settings: Any) -> Picker:
    own = {"logprobs", "processors"}
    request = {name: settings.pop(name) for name in own & settings.keys()}
    asked = GenerationRequest([1], SamplingConfig(**settings), **request)
    return Picker(vocab, asked, N_CTX, index, matcher)


class Allowing:
    """A matcher that allows a fixed set of tokens."""

    is_over = False

    def __init__(self, *tokens: int) -> None:
        self.tokens, self.accepted, self.closed = tokens, [], False

    def allows(self, token: int) -> bool:
        return token in self.tokens

    def mask(self, logits: Row) -> bool:
        kept = logits[list(self.tokens)]
        logits[:] = -math.inf
        logits[list(self.tokens)] = kept
        return bool((kept > -math.inf).any())

    def accept(self, token: int) -> None:
        self.accepted.append(token)

    def close(self) -> None:
        self.closed = True


def native(vocab: Vocab, config: SamplingConfig, prompt: list[int], given: list[Row]) -> list[int]:
    """What the samplers pick when they see the whole vocabulary."""
    out = []
    with build_chain(config, vocab, N_CTX) as chain:
        chain.accept_all(prompt)
        for row in given:
            selected, left = chain.apply(candidates_of(row))
            out.append(int(left["id"][selected]))
            chain.accept(out[-1])
    return out


CONFIGS: dict[str, dict[str, Any]] = {
    "default": {},
    "hot": {"temperature": 3.0, "top_p": 1.0, "min_p": 0.0},
    "k1": {"top_k": 1},
    "k300": {"top_k": 300, "temperature": 4.0, "top_p": 1.0},
    "all": {"top_k": 0, "temperature": 2.0},
    "top_p": {"top_k": 0, "top_p": 0.6},
    "top_p of many": {"top_k": 0, "top_p": 0.999, "temperature": 9.0, "min_keep": 3},
    "penalties": {"repeat_penalty": 1.5, "temperature": 3.0},
    "rewards": {"repeat_penalty": 0.5, "presence_penalty": -9.0, "top_k": 3, "temperature": 5.0},
    "greedy": {"temperature": 0},
    "greedy penalties": {"temperature": 0, "frequency_penalty": 4.0, "repeat_last_n": -1},
    "greedy dry": {"temperature": 0, "dry_multiplier": 2.0, "dry_allowed_length": 1},
    "penalties last": {
        "repeat_penalty": 1.9, "top_k": 5, "temperature": 3.0,
        "samplers": ("top_k", "temperature", "penalties"),
    },
    "cold first": {"samplers": ("temperature", "top_k"), "temperature": 4.0},
    "sigma": {"top_n_sigma": 1.5, "temperature": 3.0},
    "xtc": {"xtc_probability": 0.6, "xtc_threshold": 0.02, "temperature": 2.0},
    "mirostat": {"mirostat": 1},
    "mirostat 2": {"mirostat": 2},
    "adaptive": {"adaptive_target": 0.3, "temperature": 2.0},
    "typical": {"typical_p": 0.6, "temperature": 3.0, "dynatemp_range": 0.5},
}  # fmt: skip


@pytest.mark.parametrize("size", ["vocab", "large"])
@pytest.mark.parametrize("name", CONFIGS)
def test_few_candidates_give_the_tokens_of_all(
    name: str, size: str, request: pytest.FixtureRequest
) -> None:
    vocab: Vocab = request.getfixturevalue(size)
    config = SamplingConfig(seed=5, **CONFIGS[name])
    given = rows(vocab, 60 if size == "vocab" else 12)
    prompt = [int(given[0].argmax()), 7, int(given[1].argmax()), 7]
    picker = Picker(vocab, GenerationRequest([1], config), N_CTX)
    picker.prime(np.array(prompt, np.int32))
    assert picks(picker, given) == native(vocab, config, prompt, given)


def test_prompts_count_as_often_as_they_are_looked_back_at(vocab: Vocab) -> None:
    row = rows(vocab, 1)[0]
    best, second = np.argsort(-row)[:2].tolist()
    near, far = np.full(64, 5, np.int32), np.full(65, 5, np.int32)
    near[0] = far[0] = best
    for prompt, expected in ((near, second), (far, best)):
        picker = picker_of(vocab, temperature=0, presence_penalty=50.0)
        picker.prime(prompt)
        assert pick(picker, row) == expected


def test_answers_have_seeds_of_their_own(vocab: Vocab) -> None:
    given = rows(vocab, 20)
    third = picks(picker_of(vocab, index=2, seed=40, temperature=3.0), given)
    assert third == picks(picker_of(vocab, seed=42, temperature=3.0), given)
    assert third != picks(picker_of(vocab, seed=40, temperature=3.0), given)
    largest_seed = 2**32 - 2
    wrapped = picks(picker_of(vocab, index=1, seed=largest_seed, temperature=3.0), given)
    assert wrapped == picks(picker_of(vocab, seed=0, temperature=3.0), given)


def test_without_a_seed_answers_differ(vocab: Vocab) -> None:
    given = rows(vocab, 30)
    one, two = (picks(picker_of(vocab, temperature=5.0, top_k=0), given) for _ in range(2))
    assert one != two


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"seed": 1}, {"seed": 1, "top_k": 0}])
def test_biases_add_forbid_and_leave_the_row_as_it_was(
    vocab: Vocab, settings: dict[str, Any]
) -> None:
    given = rows(vocab, 20)
    before = [row.copy() for row in given]
    best = {int(row.argmax()): -math.inf for row in given}
    assert set(picks(picker_of(vocab, logit_bias={9: 100.0}, **settings), given)) == {9}
    assert not set(picks(picker_of(vocab, logit_bias=best, **settings), given)) & best.keys()
    assert all((old == new).all() for old, new in zip(before, given, strict=True))


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"seed": 1}])
def test_ends_are_ignored_if_asked(vocab: Vocab, settings: dict[str, Any]) -> None:
    row = rows(vocab, 1)[0]
    row[list(vocab.eog_tokens)] = 99.0
    assert pick(picker_of(vocab, **settings), row) in vocab.eog_tokens
    assert pick(picker_of(vocab, ignore_eos=True, **settings), row) not in vocab.eog_tokens


def test_biases_outside_the_vocabulary_are_refused(vocab: Vocab) -> None:
    for bias in ({10**6: 1.0}, {-1: 1.0}, dict.fromkeys(range(vocab.n_tokens), -math.inf)):
        with pytest.raises(InvalidParameter):
            picker_of(vocab, logit_bias=bias)


@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0, "logit_bias": {4: -math.inf}, "repeat_penalty": 1.8}, {"top_k": 2}],
)
def test_logprobs_are_of_the_unchanged_model(vocab: Vocab, settings: dict[str, Any]) -> None:
    def loudest(_tokens: object, row: Row) -> None:
        row[4], row[5] = 200.0, 100.0

    row = rows(vocab, 1)[0]
    expected = logprobs_of(row, 0, 3).top
    picker = picker_of(vocab, logprobs=3, processors=(loudest,), **settings)
    picked = picker.pick(cast(Context, Rows(row)), 0, [1])
    assert picked.token in {4, 5}
    assert picked.logprobs == logprobs_of(row, picked.token, 3)
    assert picked.logprobs.top == expected
    assert picker_of(vocab).pick(cast(Context, Rows(row)), 0, [1]).logprobs is None


def test_processors_see_the_tokens_and_each_others_changes(vocab: Vocab) -> None:
    seen: list[Sequence[int]] = []

    def first(tokens: Sequence[int], row: Row) -> None:
        seen.append(tokens)
        row[:] = -math.inf
        row[3] = row[8] = 1.0

    def second(_tokens: Sequence[int], row: Row) -> None:
        row[3 if row[3] == 1.0 else 0] = 2.0

    row = rows(vocab, 1)[0]
    before = row.copy()
    for settings in ({"temperature": 0}, {"seed": 3, "top_k": 0, "min_p": 0.9}):
        picker = picker_of(vocab, processors=(first, second), **settings)
        assert pick(picker, row, np.array([5, 6], np.int32)) == 3
    assert seen == [(5, 6), (5, 6)]
    assert (row == before).all()


def raising(_tokens: object, _row: Row) -> None:
    raise KeyError("no such\nthing")


@pytest.mark.parametrize(
    ("processor", "says"),
    [
        (raising, r"processor raising raised KeyError: 'no such\\nthing'$"),
        (lambda tokens, row: row + 1, "change the row in place"),
        (lambda tokens, row: row.fill(math.nan), "NaN"),
        (lambda tokens, row: row.fill(math.inf), "NaN or"),
        (lambda tokens, row: row.fill(-math.inf), "left no token"),
    ],
)
def test_a_processor_that_fails_ends_its_request_alone(
    vocab: Vocab, processor: Callable[[Any, Row], Any], says: str
) -> None:
    row = rows(vocab, 1)[0]
    with pytest.raises(RequestError, match=says) as caught:
        pick(picker_of(vocab, processors=(processor,)), row)
    assert caught.value.param == "processors"
    assert not isinstance(caught.value, Unsatisfiable)
    assert pick(picker_of(vocab), row) >= 0


@pytest.mark.parametrize("name", CONFIGS)
def test_constrained_tokens_are_those_of_a_second_draw(vocab: Vocab, name: str) -> None:
    config = SamplingConfig(seed=5, **CONFIGS[name])
    given = rows(vocab, 25)
    allowed = Allowing(*range(20, 200, 3))
    picker = Picker(vocab, GenerationRequest([1], config), N_CTX, 0, cast(Any, allowed))
    expected = []
    with build_chain(config, vocab, N_CTX) as chain:
        for row in given:
            selected, left = chain.apply(candidates_of(row))
            token = int(left["id"][selected])
            if token not in allowed.tokens:
                selected, left = chain.apply(candidates_of(row, np.array(allowed.tokens)))
                token = int(left["id"][selected])
            chain.accept(token)
            expected.append(token)
    before = [row.copy() for row in given]
    assert picks(picker, given) == expected
    assert all((old == new).all() for old, new in zip(before, given, strict=True))
    assert allowed.accepted == expected
    picker.close()
    assert allowed.closed


def test_nothing_left_is_an_error_and_no_abort(vocab: Vocab) -> None:
    row = rows(vocab, 1)[0]
    end = min(vocab.eog_tokens)
    for settings in CONFIGS.values():
        for matcher in (Allowing(), Allowing(end)):
            picker = picker_of(vocab, matcher=matcher, ignore_eos=True, **settings)
            with pytest.raises(Unsatisfiable):
                pick(picker, row)
            assert matcher.accepted == []

    def only_the_end(_tokens: object, row: Row) -> None:
        row[np.arange(len(row)) != end] = -math.inf

    for settings in CONFIGS.values():
        with pytest.raises(Unsatisfiable, match="no token to choose"):
            pick(picker_of(vocab, processors=(only_the_end,), ignore_eos=True, **settings), row)


@pytest.mark.parametrize("settings", CONFIGS.values(), ids=CONFIGS)
def test_logits_that_are_no_numbers_are_an_error(vocab: Vocab, settings: dict[str, Any]) -> None:
    row = rows(vocab, 1)[0]
    row[100] = math.nan
    with pytest.raises(FatalDecode):
        pick(picker_of(vocab, **settings), row)
