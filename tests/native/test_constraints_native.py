"""Constraints on a real vocabulary, alone and through the engine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from llamalite.config import SamplingConfig
from llamalite.constraint.guided import GuidedMatcher
from llamalite.constraint.spec import Constraint
from llamalite.core.model import Model
from llamalite.core.vocab import Vocab
from llamalite.engine.constraining import compile_constraint, prepare_vocab
from llamalite.engine.engine import Engine
from llamalite.engine.request import EngineOptions, GenerationRequest
from llamalite.engine.result import GenerationResult
from llamalite.errors import ConstraintError, EngineClosed
from llamalite.ffi.library import Library

pytest.importorskip("llguidance", reason="llguidance is not installed")

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
PERSON_TEXT = json.dumps(PERSON)


@pytest.fixture(scope="module")
def engine(stories: Path) -> Iterator[Engine]:
    options = EngineOptions(n_parallel=4)
    with Engine.load(str(stories), options, n_ctx=512, n_threads=1) as engine:
        yield engine


def request(engine: Engine, kind: str, text: str = "", **more: Any) -> GenerationRequest:
    sampling = {"temperature": 1.2, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 3}
    sampling["max_tokens"] = more.pop("max_tokens", 200)
    prompt = engine.loaded.model.vocab.tokenize("Once upon a time")
    return GenerationRequest(
        prompt, SamplingConfig(**sampling), constraint=Constraint(kind, text), **more
    )


def answers(engine: Engine, kind: str, text: str = "", **more: Any) -> list[GenerationResult]:
    return engine.submit(request(engine, kind, text, **more)).results()


def test_answers_follow_a_schema_and_end(engine: Engine) -> None:
    for max_tokens in (60, 200):
        for answer in answers(engine, "json_schema", PERSON_TEXT, n=8, max_tokens=max_tokens):
            assert answer.finish_reason == "stop", answer.text
            jsonschema.validate(json.loads(answer.text), PERSON)


def test_every_seed_gives_its_answer_again(engine: Engine) -> None:
    one, other = (answers(engine, "json_schema", PERSON_TEXT, n=2) for _ in range(2))
    assert [answer.tokens for answer in one] == [answer.tokens for answer in other]
    assert one[0].tokens != one[1].tokens


def test_json_objects_regexes_and_grammars(engine: Engine) -> None:
    for answer in answers(engine, "json_object", n=4):
        assert isinstance(json.loads(answer.text), dict)
    for answer in answers(engine, "regex", "(cat|dog){1,3} [0-9]{4}", n=4):
        assert re.fullmatch("(cat|dog){1,3} [0-9]{4}", answer.text)
        assert answer.finish_reason == "stop"
    lark = 'start: "I have " NUMBER " " ("cats" | "dogs") "."\nNUMBER: /[1-9][0-9]?/'
    for answer in answers(engine, "lark", lark, n=4):
        assert re.fullmatch(r"I have [1-9][0-9]? (cats|dogs)\.", answer.text)
    for answer in answers(engine, "gbnf", 'root ::= ("yes" | "no") "!"', n=4):
        assert answer.text in ("yes!", "no!")


def test_a_constraint_may_begin_after_thinking(engine: Engine) -> None:
    given = {"think_end": ".", "n": 4, "max_tokens": 300}
    for answer in answers(engine, "json_schema", PERSON_TEXT, **given):
        thought, dot, rest = answer.text.partition(".")
        assert thought
        assert dot
        jsonschema.validate(json.loads(rest), PERSON)
        assert answer.finish_reason == "stop"


def test_too_few_tokens_end_in_length(engine: Engine) -> None:
    (answer,) = answers(engine, "json_schema", PERSON_TEXT, max_tokens=4)
    assert answer.finish_reason == "length"
    assert len(answer.tokens) == 4


def test_what_cant_be_enforced_never_reaches_the_engine(engine: Engine) -> None:
    misspelt = json.dumps({"type": "object", "properties": {"a": {"maxLenght": 3}}})
    with pytest.raises(ConstraintError, match=r"^/properties/a/maxLenght: .* did you mean max"):
        answers(engine, "json_schema", misspelt)
    with pytest.raises(ConstraintError, match="no regular expression"):
        answers(engine, "regex", "(")
    assert answers(engine, "regex", "ok")[0].text == "ok"


# -- vocabularies ---------------------------------------------------------------------------------


def matcher_for(vocab: Vocab, schema: Any) -> GuidedMatcher:
    sampling = SamplingConfig(max_tokens=None)
    constraint = Constraint("json_schema", json.dumps(schema))
    made = compile_constraint(GenerationRequest([1], sampling, constraint=constraint), vocab)
    assert made is not None
    matcher = made()
    assert isinstance(matcher, GuidedMatcher)
    return matcher


def test_tokens_of_a_text_are_taken(model: Model) -> None:
    vocab = model.vocab
    text = '{"name": "Zoë 木 <|im_end|> \\n", "age": 42, "tags": ["a", "b"]}'
    matcher = matcher_for(vocab, PERSON)
    for token in vocab.tokenize(text, add_special=False):
        assert matcher.allows(token), vocab.piece(token)
        assert not matcher.is_over
        matcher.accept(token)
    assert matcher.is_over
    assert all(matcher.allows(end) for end in vocab.eog_tokens)


def test_control_tokens_are_no_text(model: Model) -> None:
    vocab = model.vocab
    (control,) = vocab.tokenize("<|im_start|>", add_special=False, parse_special=True)
    matcher = matcher_for(vocab, {"type": "string"})
    for token in vocab.tokenize('"a', add_special=False):
        matcher.accept(token)
    assert not matcher.allows(control)
    logits = np.zeros(vocab.n_tokens, np.float32)
    assert matcher.mask(logits)
    unseen = [t for t in range(vocab.n_tokens) if vocab.piece(t) != vocab.piece(t, special=True)]
    assert control in unseen
    assert np.isneginf(logits[unseen]).all()
    assert (logits == 0).sum() > vocab.n_tokens // 2


def test_pieces_are_those_of_single_tokens(model: Model) -> None:
    vocab = model.vocab
    pieces = vocab.all_pieces()
    assert len(pieces) == vocab.n_tokens
    for token in [*range(60), *range(60, vocab.n_tokens, 997)]:
        assert pieces[token].removeprefix(b"\xff") == vocab.piece(token, special=True)


def test_a_vocabulary_is_prepared_once_and_only_while_it_is_there(
    library: Library, stories: Path
) -> None:
    with Model(library, stories, vocab_only=True) as model:
        vocab = model.vocab
        assert prepare_vocab(vocab) is prepare_vocab(vocab)
    constraint = Constraint("json_object")
    with pytest.raises(EngineClosed):
        compile_constraint(GenerationRequest([1], constraint=constraint), vocab)
