"""Grammars constrain, tell what they allow, and never abort the process."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.grammars import random_grammar

from llamalite.core.context import Context
from llamalite.core.grammar import GrammarMatcher
from llamalite.core.model import Model
from llamalite.core.vocab import Vocab
from llamalite.errors import ConstraintError, InvalidParameter
from llamalite.ffi.library import Library

YES_NO = 'root ::= "yes" | "no"'


@pytest.fixture(scope="module")
def vocab(library: Library, stories: Path) -> Iterator[Vocab]:
    with Model(library, stories, vocab_only=True) as model:
        yield model.vocab


def allowed_by(matcher: GrammarMatcher, vocab: Vocab) -> list[int]:
    logits = np.zeros(vocab.n_tokens, np.float32)
    left = matcher.mask(logits)
    ids = np.flatnonzero(logits == 0).tolist()
    assert left == bool(ids)
    return ids


def text_after(matcher: GrammarMatcher, vocab: Vocab, rng: random.Random, limit: int) -> bytes:
    """Walk at random until the end, checking what is said on the way."""
    text = b""
    for _ in range(limit):
        ids = allowed_by(matcher, vocab)
        assert matcher.is_over == (not set(ids) - vocab.eog_tokens)
        if not ids:
            break
        token = rng.choice(ids)
        assert matcher.allows(token)
        matcher.accept(token)
        text += vocab.piece(token)
        if vocab.is_eog(token):
            assert matcher.is_over
            break
    return text


def test_every_walk_spells_what_the_grammar_says(vocab: Vocab) -> None:
    rng = random.Random(1)
    texts = set()
    for _ in range(30):
        with GrammarMatcher(vocab, YES_NO) as matcher:
            texts.add(text_after(matcher, vocab, rng, 10))
    assert texts == {b"yes", b"no"}


def test_random_walks_through_random_grammars_end_well(vocab: Vocab) -> None:
    rng = random.Random(7)
    walked = 0
    while walked < 60:
        try:
            matcher = GrammarMatcher(vocab, random_grammar(rng))
        except ConstraintError:
            continue
        with matcher:
            text_after(matcher, vocab, rng, 8)
        walked += 1


def test_other_tokens_are_refused_and_change_nothing(vocab: Vocab) -> None:
    end, x = min(vocab.eog_tokens), vocab.tokenize("x", add_special=False)[-1]
    with GrammarMatcher(vocab, YES_NO) as matcher:
        first = allowed_by(matcher, vocab)
        for token in (end, x, vocab.special_tokens["bos"]):
            assert not matcher.allows(token)
            with pytest.raises(ConstraintError, match=f"doesn't allow token {token}"):
                matcher.accept(token)
        with pytest.raises(InvalidParameter):
            matcher.accept(vocab.n_tokens)
        assert allowed_by(matcher, vocab) == first
        assert text_after(matcher, vocab, random.Random(2), 10) in {b"yes", b"no"}
        assert matcher.is_over
        with pytest.raises(ConstraintError):
            matcher.accept(x)


def test_it_is_over_only_where_nothing_may_follow(vocab: Vocab) -> None:
    for grammar, over in (
        ('root ::= "y"', True),
        ('root ::= "y"+', False),
        ('root ::= "y" "z"?', False),
    ):
        with GrammarMatcher(vocab, grammar) as matcher:
            assert not matcher.is_over
            token = next(i for i in allowed_by(matcher, vocab) if vocab.piece(i) == b"y")
            matcher.accept(token)
            assert matcher.is_over == over


def test_it_does_not_end_in_the_midst_of_a_character(vocab: Vocab) -> None:
    def token(piece: bytes) -> int:
        return next(i for i in range(vocab.n_tokens) if vocab.piece(i) == piece)

    end = min(vocab.eog_tokens)
    with GrammarMatcher(vocab, 'root ::= "a" [^x]?') as matcher:
        matcher.accept(token(b"a"))
        assert matcher.allows(end)
        for byte in (b"\xe2", b"\x82"):
            matcher.accept(token(byte))
            assert not matcher.allows(end)
            assert end not in allowed_by(matcher, vocab)
            assert not matcher.is_over
        matcher.accept(token(b"\xac"))
        assert matcher.is_over
        assert matcher.allows(end)


def test_too_many_readings_are_an_error_before_they_take_forever(vocab: Vocab) -> None:
    bracket = next(i for i in range(vocab.n_tokens) if vocab.piece(i) == b"(")

    def open_many(matcher: GrammarMatcher) -> None:
        for _ in range(40):
            matcher.accept(bracket)

    grammar = 'root ::= "x" | "(" root ")" | "(" root "]"'
    readings = pytest.raises(ConstraintError, match="too many readings")
    with GrammarMatcher(vocab, grammar) as matcher, readings:
        open_many(matcher)


def test_masks_keep_what_is_forbidden_already(vocab: Vocab) -> None:
    with GrammarMatcher(vocab, YES_NO) as matcher:
        ids = allowed_by(matcher, vocab)
        logits = np.linspace(0, 1, vocab.n_tokens, dtype=np.float32)
        logits[ids[0]] = -np.inf
        before = logits.copy()
        assert matcher.mask(logits)
        assert np.flatnonzero(logits > -np.inf).tolist() == ids[1:]
        assert (logits[ids[1:]] == before[ids[1:]]).all()
        logits[ids] = -np.inf
        assert not matcher.mask(logits)


def test_control_tokens_are_no_text_of_a_grammar(context: Context) -> None:
    vocab = context.model.vocab
    control = vocab.tokenize("<|im_start|>", parse_special=True)[-1]
    end = min(vocab.eog_tokens)
    with GrammarMatcher(vocab, "root ::= [^x]*") as matcher:
        assert not matcher.allows(control)
        assert control not in allowed_by(matcher, vocab)
        assert matcher.allows(end)
        assert len(allowed_by(matcher, vocab)) > 40_000


def test_clones_stand_where_the_first_stood_and_go_their_own_way(vocab: Vocab) -> None:
    rng = random.Random(7)
    for _ in range(60):
        try:
            first = GrammarMatcher(vocab, random_grammar(rng))
        except ConstraintError:
            continue
        with first as matcher:
            for _ in range(4):
                twin = matcher.clone()
                ids = allowed_by(matcher, vocab)
                assert allowed_by(twin, vocab) == ids
                text_after(twin, vocab, rng, 5)
                assert allowed_by(matcher, vocab) == ids
                twin.close()
                if not ids or matcher.is_over:
                    break
                matcher.accept(rng.choice(ids))
    twin = GrammarMatcher(vocab, YES_NO).clone()  # outlives the first
    assert text_after(twin, vocab, rng, 10) in {b"yes", b"no"}
