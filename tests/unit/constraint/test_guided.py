"""llguidance's matchers, over a vocabulary of single bytes and a few longer tokens."""

from __future__ import annotations

import builtins
import json
import random
import threading
import time
from typing import Any

import jsonschema
import numpy as np
import pytest

from llamalite.constraint import landing as landing_module
from llamalite.constraint.delayed import DelayedMatcher
from llamalite.constraint.guided import Guide, GuidedMatcher, GuidedVocab
from llamalite.constraint.landing import LandingMatcher
from llamalite.constraint.matcher import Matcher
from llamalite.constraint.way_out import find_way
from llamalite.errors import ConstraintError

llguidance = pytest.importorskip("llguidance", reason="llguidance is not installed")

WORDS = (b'"}', b"]}", b'":', b"null", b"true", b"false", b"name", b'{"', b"hello ", b'""')
END = 256 + len(WORDS)


class _Tokens:
    """What llguidance wants of a tokenizer."""

    eos_token_id, bos_token_id, special_token_ids = END, None, (END,)
    tokens = (*(bytes([i]) for i in range(256)), *WORDS, b"<end>")
    is_tokenizer_wrapper = True

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


@pytest.fixture(scope="module")
def vocab() -> GuidedVocab:
    return GuidedVocab(llguidance.LLTokenizer(_Tokens()), list(_Tokens.tokens), [END])


def guide(vocab: GuidedVocab, schema: Any) -> Guide:
    return Guide(vocab, "json_schema", json.dumps(schema))


def masked(matcher: Matcher) -> list[int]:
    logits = np.zeros(END + 1, np.float32)
    left = matcher.mask(logits)
    ids: list[int] = np.flatnonzero(logits == 0).tolist()
    assert left == bool(ids)
    return ids


def write(matcher: Matcher, text: str) -> bool:
    """Take a text byte by byte; False where it isn't allowed."""
    for byte in text.encode():
        if not matcher.allows(byte):
            return False
        matcher.accept(byte)
    return True


def takes(vocab: GuidedVocab, schema: Any, text: str) -> bool:
    matcher = guide(vocab, schema).matcher()
    return write(matcher, text) and matcher.may_end


def walk(matcher: Matcher, rng: random.Random, n_tokens: int) -> tuple[str, str]:
    """Choose at random among what the mask leaves; return the text and why it ended."""
    written: list[bytes] = []
    for _ in range(n_tokens):
        if matcher.is_over:
            return b"".join(written).decode(), "stop"
        ids = masked(matcher)
        if not ids:
            return b"".join(written).decode(), "stuck"
        closing = [token for token in ids if _Tokens.tokens[token][:1] in b'"}]']
        token = rng.choice(closing if closing and rng.random() < 0.5 else ids)
        assert matcher.allows(token)
        matcher.accept(token)
        if token == END:
            return b"".join(written).decode(), "stop"
        written.append(_Tokens.tokens[token])
    over = matcher.is_over
    return b"".join(written).decode("utf-8", "replace"), "stop" if over else "length"


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
}


def test_a_matcher_follows_its_answer(vocab: GuidedVocab) -> None:
    matcher = guide(vocab, PERSON).matcher()
    assert not matcher.allows(ord("["))
    assert not matcher.allows(END)
    assert write(matcher, '{"name": "Bo')
    assert not matcher.is_over
    assert ord('"') in masked(matcher)
    assert write(matcher, '"')
    assert not matcher.is_over
    assert write(matcher, "}")
    assert matcher.is_over
    assert masked(matcher) == [END]
    assert matcher.allows(END)
    assert not matcher.allows(ord(" "))


def test_the_end_may_come_where_more_could(vocab: GuidedVocab) -> None:
    matcher = Guide(vocab, "regex", "[0-9]+").matcher()
    assert not matcher.allows(END)
    assert write(matcher, "1")
    assert matcher.allows(END)
    assert not matcher.is_over
    matcher.accept(END)
    assert matcher.is_over


def test_matchers_of_one_guide_are_strangers(vocab: GuidedVocab) -> None:
    rule = guide(vocab, PERSON)
    one, other = rule.matcher(), rule.matcher()
    assert write(one, '{"name"')
    fork = one.fork()
    assert write(fork, ":")
    assert not other.allows(ord(":"))
    assert write(other, "{")
    assert write(one, ":")


def test_a_row_longer_than_the_vocabulary_is_masked_whole(vocab: GuidedVocab) -> None:
    logits = np.zeros(END + 40, np.float32)
    assert guide(vocab, PERSON).matcher().mask(logits)
    assert np.isneginf(logits[END:]).all()
    logits.fill(-np.inf)
    assert not guide(vocab, PERSON).matcher().mask(logits)


def test_a_failed_matcher_allows_nothing(vocab: GuidedVocab) -> None:
    matcher = guide(vocab, PERSON).matcher()
    matcher.accept(ord("x"))
    assert not matcher.is_over
    assert not matcher.allows(END)
    assert masked(matcher) == []


def test_a_closed_matcher_is_harmless(vocab: GuidedVocab) -> None:
    matcher = guide(vocab, PERSON).matcher()
    matcher.close()
    matcher.accept(ord("{"))
    assert not matcher.allows(ord("{"))
    assert masked(matcher) == []


def test_a_json_object_is_any_object(vocab: GuidedVocab) -> None:
    for text, fits in {'{"a": [1, null]}': True, "{}": True, "[]": False, "1": False}.items():
        matcher = Guide(vocab, "json_object", "").matcher()
        assert (write(matcher, text) and matcher.is_over) == fits


@pytest.mark.parametrize("space", ["  ", "\n", "\t", " \n"])
def test_space_is_bounded(vocab: GuidedVocab, space: str) -> None:
    assert takes(vocab, PERSON, '{"name": "x", "age": 1}')
    assert takes(vocab, PERSON, '{"name":"x","age":1}')
    assert not takes(vocab, PERSON, '{"name":' + space + '"x"}')
    assert not takes(vocab, PERSON, "{" + space + '"name":"x"}')


def test_a_name_cant_come_back_in_disguise(vocab: GuidedVocab) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}}
    assert takes(vocab, schema, '{"age":1,"bge":"x"}')
    assert not takes(vocab, schema, '{"\\u0061ge":"x"}')
    assert not takes(vocab, schema, '{"age":1,"age":"x"}')


def test_dates_are_days_that_exist(vocab: GuidedVocab) -> None:
    schema = {"type": "string", "format": "date"}
    for day in ("2024-02-29", "2000-02-29", "1999-12-31", "0004-02-29", "2023-11-30"):
        assert takes(vocab, schema, f'"{day}"'), day
    for day in ("2023-02-29", "1900-02-29", "2023-04-31", "2023-13-01", "0000-01-01", "2023-00-10"):
        assert not takes(vocab, schema, f'"{day}"'), day


BLAMED = {
    "pattern": ({"type": "string", "pattern": "(?=a)b"}, "/pattern: look-around"),
    "word boundary": ({"type": "string", "pattern": "\\bb"}, "/pattern: anchors inside"),
    "no pattern": ({"type": "string", "pattern": "a["}, "/pattern: no regular"),
    "exploding pattern": ({"pattern": "^((a{99}){99}){99}$"}, "/pattern: it is too complex"),
    "never fitting": ({"type": "string", "pattern": "^ab$", "maxLength": 1}, "/pattern: nothing"),
    "bounds": ({"type": "integer", "minimum": 3, "maximum": 2}, "/minimum: nothing can fulfil it"),
    "patterns of names": (
        {"type": "object", "patternProperties": {"^a": {"type": "null"}, "b$": {"minimum": 1}}},
        "/patternProperties: patternProperty regexes",
    ),
    "number of names": (
        {"type": "object", "properties": {"a": {}, "b": {}}, "maxProperties": 1},
        "/properties: minProperties and maxProperties can be enforced only if",
    ),
    "fine steps": ({"type": "number", "multipleOf": 1e-20}, "/multipleOf: Value for 'multipleOf'"),
}  # fmt: skip


@pytest.mark.parametrize(("part", "said"), BLAMED.values(), ids=BLAMED)
def test_what_llguidance_refuses_is_found_in_the_schema(
    vocab: GuidedVocab, part: dict[str, Any], said: str
) -> None:
    schema = {
        "type": "object",
        "properties": {
            "fine": {"type": "string", "pattern": "^a"},
            "list": {"type": "array", "items": {"$ref": "#/$defs/d"}},
        },
        "required": ["list"],
        "$defs": {"d": {"type": "object", "required": ["p"], "properties": {"p": part}}},
    }
    with pytest.raises(ConstraintError) as caught:
        guide(vocab, schema)
    assert str(caught.value).startswith("/$defs/d/properties/p" + said)
    assert "\n" not in str(caught.value)


BAD_TEXTS = {
    ("regex", "["): "no regular expression: unclosed character class",
    ("regex", "(a)\\1"): "references back",
    ("regex", "(a{1000}){1000}"): "too complex",
    ("regex", "[^\\s\\S]"): "nothing can fulfil it",
    ("regex", "a" * 2**20 + "b"): "has 1048577 bytes and at most",
    ("regex", "\ud800"): "not valid Unicode",
    ("lark", ""): "Empty grammar",
    ("lark", 'start: "a" b'): "unknown name",
    ("lark", 'start: x\nx: "a" x'): "too complex, or it never ends",
    ("lark", '{"grammars": []}'): "a Lark grammar is wanted, not JSON",
    ("lark", 'start: %json {"maxLenght": 1}'): "^/maxLenght: no such keyword",
}


@pytest.mark.parametrize(("kind", "text"), BAD_TEXTS, ids=range(len(BAD_TEXTS)))
def test_faulty_texts_are_refused_in_one_line(vocab: GuidedVocab, kind: str, text: str) -> None:
    started = time.process_time()
    with pytest.raises(ConstraintError, match=BAD_TEXTS[kind, text]) as caught:
        Guide(vocab, kind, text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 450
    assert time.process_time() - started < 5


def test_lark_grammars_hold_schemas(vocab: GuidedVocab) -> None:
    text = 'start: "call " %json {"type": "object", "title": "x", "maxProperties": 0} "!"'
    matcher = Guide(vocab, "lark", text).matcher()
    assert write(matcher, "call {}!")
    assert matcher.is_over


def test_without_llguidance_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plain_import = builtins.__import__

    def importing(name: str, *args: Any) -> Any:
        if name == "llguidance":
            raise ImportError("No module named 'llguidance'")
        return plain_import(name, *args)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(ConstraintError, match="pip install"):
        GuidedVocab.from_llama([b"a"], 1, 1, [0])


def test_a_vocabulary_without_an_end_is_refused() -> None:
    with pytest.raises(ConstraintError, match="no token that ends"):
        GuidedVocab.from_llama([b"a"], 1, 1, [])


# -- random schemas -------------------------------------------------------------------------------

NAMES = ["a", "b", "kind", "x1", 'a"b', "ü"]
LITERALS = [None, True, 0, 2.0, -0.25, 1e-7, 3e10, "", "a", 'é"\\', "</x>", [1, "a"], {"a": None}]
FORMATS = ["date", "date-time", "time", "email", "uuid", "ipv4", "ipv6", "hostname", "uri",
           "duration", "uri-reference", "json-pointer"]  # fmt: skip


def random_schema(rng: random.Random, depth: int = 0) -> Any:
    if depth > 2 or rng.random() < 0.05:
        kind = rng.choice(["null", "boolean", "integer", "string"])
        return rng.choice([True, {}, {"type": kind}, {"$ref": "#/$defs/d"}])

    def inner() -> Any:
        return random_schema(rng, depth + 1)

    def named() -> dict[str, Any]:
        return {name: inner() for name in rng.sample(NAMES, rng.randrange(4))}

    number = rng.choice([0, 1, 3, 10, -3, 0.5, 99, -0.1])
    kinds: dict[str, dict[str, Any]] = {
        "integer": {"minimum": number, "maximum": number + rng.randrange(9), "multipleOf": 2},
        "number": {"exclusiveMinimum": number, "maximum": 50, "multipleOf": 0.5},
        "string": {
            "minLength": rng.randrange(3),
            "maxLength": rng.randrange(2, 6),
            "pattern": rng.choice(["^a", "b$", "^[a-z]+$", "^\\d{2,3}$", "a|b", "[^x]"]),
            "format": rng.choice(FORMATS),
        },
        "object": {
            "properties": named(),
            "required": rng.sample(NAMES, rng.randrange(3)),
            "additionalProperties": rng.choice([False, False, True, inner()]),
            "patternProperties": {rng.choice(["^x", "^[a-c]$", "1"]): inner()},
            "minProperties": rng.randrange(2),
            "maxProperties": rng.randrange(4),
        },
        "array": {
            "items": inner(),
            "prefixItems": [inner(), inner()],
            "minItems": rng.randrange(3),
            "maxItems": rng.randrange(1, 4),
        },
    }
    choice = rng.randrange(9)
    if choice == 0:
        return {"enum": rng.sample(LITERALS, 3)}
    if choice == 1:
        return {rng.choice(["anyOf", "oneOf", "allOf"]): [inner() for _ in range(2)]}
    kind = rng.choice(list(kinds))
    rules = {key: rule for key, rule in kinds[kind].items() if rng.random() < 0.4}
    return {"type": kind, **rules}


def test_random_answers_to_random_schemas_are_valid(vocab: GuidedVocab) -> None:
    rng = random.Random(7)
    ends: dict[str, int] = {"stop": 0, "length": 0, "refused": 0}
    for _ in range(220):
        schema = {"anyOf": [random_schema(rng)], "$defs": {"d": random_schema(rng, 1)}}
        try:
            rule = guide(vocab, schema)
        except ConstraintError:
            ends["refused"] += 1
            continue
        checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
        validator = jsonschema.Draft202012Validator(schema, format_checker=checker)
        for _ in range(3):
            text, reason = walk(rule.matcher(), rng, 150)
            ends[reason] += 1
            if reason == "stop":
                errors = list(validator.iter_errors(json.loads(text)))
                assert not errors, (schema, text, errors[0].message)
    assert ends["stop"] > 300
    assert ends["refused"] < 100


# -- reaching the end in time ---------------------------------------------------------------------

LIST = {"type": "array", "items": PERSON, "minItems": 2}


@pytest.mark.parametrize("n_tokens", [35, 60, 200])
def test_answers_land_within_their_tokens(vocab: GuidedVocab, n_tokens: int) -> None:
    rng = random.Random(3)
    for schema in (LIST, {"type": "object"}, {}, {"type": "string"}, {"type": "integer"}):
        rule = guide(vocab, schema)
        for _ in range(4):
            text, reason = walk(LandingMatcher(rule.matcher(), n_tokens, 30), rng, n_tokens)
            assert reason == "stop", text
            jsonschema.validate(json.loads(text), schema)


def test_deeply_nested_answers_land(vocab: GuidedVocab) -> None:
    pair = {
        "type": "object",
        "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}},
        "required": ["left", "right"],
        "additionalProperties": False,
    }
    schema = {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 9}, pair]}
    matcher = LandingMatcher(guide(vocab, schema).matcher(), 600, 1)
    text = ""
    for _ in range(600):
        wanted = '{"left":'[len(text) % 8]
        byte = ord(wanted) if matcher.allows(ord(wanted)) else min(masked(matcher))
        matcher.accept(byte)
        text += _Tokens.tokens[byte].decode()
        if matcher.is_over:
            break
    assert text.startswith('{"left":' * 20)
    jsonschema.validate(json.loads(text), schema)


def test_landing_leaves_answers_free_before(vocab: GuidedVocab) -> None:
    rule = guide(vocab, LIST)
    free, landing = rule.matcher(), LandingMatcher(rule.matcher(), 200, 30)
    for byte in b'[{"name": "a long text':
        assert masked(free) == masked(landing)
        free.accept(byte)
        landing.accept(byte)


def test_landing_forbids_only_what_is_too_long(vocab: GuidedVocab) -> None:
    matcher = LandingMatcher(guide(vocab, LIST).matcher(), 45, 30)
    assert write(matcher, '[{"name":"abc')
    assert matcher.allows(ord("d"))
    while matcher.allows(ord("d")):
        matcher.accept(ord("d"))
    assert ord("d") not in masked(matcher)
    text, reason = walk(matcher, random.Random(1), 30)
    assert reason == "stop"
    assert text.endswith("}]")


def test_a_way_once_found_is_kept_to(vocab: GuidedVocab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search from half-way may find a longer one, or none."""
    rule = guide(vocab, {"type": "string", "maxLength": 9})
    way = [ord(c) for c in '"ab"']
    found = iter([way])
    monkeypatch.setattr(landing_module, "find_way", lambda *_: next(found, None))
    matcher = LandingMatcher(rule.matcher(), len(way), len(way))
    for token in way:
        assert masked(matcher) == [token]
        matcher.accept(token)
    assert matcher.is_over


def test_what_opens_much_is_checked_long_before_the_end(
    vocab: GuidedVocab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list's next item may demand more tokens than are left."""
    known = [[ord("]")] * 20, None, [ord("]")] * 20]
    monkeypatch.setattr(landing_module, "find_way", lambda *_: known.pop(0))
    rule = guide(vocab, {"type": "array", "items": {"type": "integer"}})
    begun = rule.matcher()
    assert write(begun, "[1")
    matcher = LandingMatcher(begun, 90, 80)
    assert matcher.allows(ord("2"))
    assert not matcher.allows(ord(","))
    assert not known


def test_with_too_few_tokens_nothing_is_steered(vocab: GuidedVocab) -> None:
    rule = guide(vocab, LIST)
    free, landing = rule.matcher(), LandingMatcher(rule.matcher(), 5, 30)
    assert masked(free) == masked(landing)
    assert find_way(rule.matcher(), vocab.exits, 5) is None


def test_a_way_to_the_end_is_found_from_anywhere(vocab: GuidedVocab) -> None:
    tree = {
        "anyOf": [
            {"type": "integer"},
            {"type": "object", "properties": {"left": {"$ref": "#"}}, "required": ["left"]},
        ]
    }
    formats = [{"type": "string", "format": name} for name in FORMATS]
    odd = {"type": "string", "pattern": "^[a-z]+[0-9]{3}(,[A-F]+)*;$"}
    schemas = (tree, {"type": "string", "minLength": 12}, odd, *formats)
    rng = random.Random(5)
    for schema in schemas:
        matcher = guide(vocab, schema).matcher()
        for _ in range(12):
            way = find_way(matcher.fork(), vocab.exits, 60)
            assert way is not None, schema
            ahead = matcher.fork()
            for token in way:
                assert ahead.allows(token)
                ahead.accept(token)
            assert ahead.is_over
            if matcher.is_over:
                break
            matcher.accept(rng.choice(masked(matcher)))


class _Endless:
    """A matcher that any token brings no nearer to an end; counts how often it is asked."""

    def __init__(self, vocab: GuidedVocab, asked: list[None] | None = None) -> None:
        self.vocab, self.asked = vocab, [] if asked is None else asked
        self.is_over = self.may_end = False

    def fork(self) -> _Endless:
        return _Endless(self.vocab, self.asked)

    def allowed_bits(self) -> Any:
        self.asked.append(None)
        return np.full((END + 32) // 32, 2**32 - 1, np.uint32)

    def accept(self, token: int) -> None:
        pass


def test_no_way_is_looked_for_without_end(vocab: GuidedVocab) -> None:
    endless: Any = _Endless(vocab)
    matcher = LandingMatcher(endless, 30_000, 29_999)
    for _ in range(100):
        before = len(endless.asked)
        matcher.accept(ord("a"))
        assert len(endless.asked) - before <= 1010
    assert 0 < len(endless.asked) < 5000


def test_an_answer_of_hardly_enough_tokens_is_steered_from_its_first(vocab: GuidedVocab) -> None:
    rule = guide(vocab, {"enum": [7, [1, 2, 3, 4, 5, 6]]})
    matcher = LandingMatcher(rule.matcher(), 2, rule.n_shortest)
    assert masked(matcher) == [ord("7")]
    assert not matcher.allows(ord("["))


def test_threads_look_for_ways_at_the_same_time(vocab: GuidedVocab) -> None:
    rule = guide(vocab, {"type": "string", "pattern": "^[a-z]+[0-9]{3}(,[A-F]+)*;$"})
    alone = find_way(rule.matcher(), vocab.exits, 60)
    found: list[list[int] | None] = []

    def look() -> None:
        for _ in range(20):
            found.append(find_way(rule.matcher(), vocab.exits, 60))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone] * 80


# -- beginning later ------------------------------------------------------------------------------


def test_a_delayed_constraint_begins_behind_its_text(vocab: GuidedVocab) -> None:
    rule, begun = guide(vocab, PERSON), []

    def make(n_before: int) -> GuidedMatcher:
        begun.append(n_before)
        return rule.matcher()

    matcher = DelayedMatcher(make, "</think>", lambda token: _Tokens.tokens[token], {END})
    assert masked(matcher) == list(range(END))  # an answer that ended now would follow no rule
    assert not matcher.allows(END)
    assert write(matcher, "anything </thin</think")
    assert not begun
    assert not matcher.is_over
    matcher.accept(ord(">"))
    assert begun == [23]
    assert not matcher.allows(ord("x"))
    assert write(matcher, '{"name":""}')
    assert matcher.is_over
    matcher.close()


def test_a_token_may_hold_the_beginning_and_more() -> None:
    pieces = [b"a</", b"x>b"]
    matcher = DelayedMatcher(
        lambda n_before: pytest.fail(str(n_before)), "</x>", pieces.__getitem__, ()
    )
    matcher.accept(0)
    with pytest.raises(pytest.fail.Exception, match="2"):
        matcher.accept(1)
