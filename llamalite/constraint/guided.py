"""Constraints by llguidance: JSON schemas, regular expressions and Lark grammars as token masks.

Owns llguidance's objects, its limits and what its errors mean. Doesn't know where vocabularies come
from or how tokens are chosen. Imports numpy, `llamalite.errors` and its siblings, and llguidance on
first use.

Source: llguidance 1.9, docs/json_schema.md and docs/syntax.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from llamalite.constraint.guided_errors import explain
from llamalite.constraint.schema import clean_schema
from llamalite.constraint.way_out import Exits, find_way
from llamalite.errors import ConstraintError

MAX_BYTES = 1 << 20
"""Longest regular expression or grammar, in UTF-8."""

_JSON = {
    "item_separator": ", ?",
    "key_separator": ": ?",
    "whitespace_flexible": False,
    # Escaped letters would let a name that is taken come back under another spelling.
    "json_allowed_escapes": 'nrbtf\\"',
}
_LIMITS = {
    "initial_lexer_fuel": 300_000,  # 0.5 s for an expression that explodes
    "step_lexer_fuel": 100_000,
    "max_lexer_states": 50_000,  # of 1 to 2 kB
    "max_items_in_row": 20_000,
    "step_max_items": 200_000,  # 10 ms
    "verbose_errors": False,
}
_SCHEMA_LIMITS = {**_LIMITS, "initial_lexer_fuel": 2_000_000}  # patterns have been tried alone
_LONGEST_WAY = 1000
_N_PROBED = 16
"""Tokens that are tried before a rule is taken: what explodes mostly does so at once."""


class GuidedVocab:
    """A vocabulary as llguidance keeps it: made once, shared by all constraints.

    Args:
        tokenizer: llguidance's LLTokenizer.
        pieces: bytes of every token, control tokens with 0xFF in front.
        ends: tokens that end a generation.
    """

    def __init__(self, tokenizer: Any, pieces: list[bytes], ends: Sequence[int]) -> None:
        self.tokenizer, self._pieces = tokenizer, pieces
        self.n_tokens, self.ends = len(pieces), frozenset(ends)

    @classmethod
    def from_llama(
        cls, pieces: list[bytes], vocab_address: int, tokenize_address: int, ends: Sequence[int]
    ) -> GuidedVocab:
        """Make one for a vocabulary of libllama.

        Args:
            pieces: bytes of every token, control tokens with 0xFF in front.
            vocab_address: `llama_vocab *`; must stay valid as long as this and all made with it.
            tokenize_address: address of `llama_tokenize`.
            ends: tokens that end a generation.

        Raises:
            ConstraintError: llguidance is missing or can't take this vocabulary.
        """
        if not ends:
            raise ConstraintError(
                "this model's vocabulary has no token that ends a generation: only GBNF grammars "
                "work with it",
                param="constraint",
            )
        try:
            tokenizer = _llguidance().LLTokenizer.from_llamacpp(
                tokens=pieces,
                vocab_ptr=vocab_address,
                tokenize_fptr=tokenize_address,
                eos_token=list(ends),
            )
        except ValueError as error:
            raise ConstraintError(
                f"llguidance can't use this model's vocabulary: {explain(str(error))}",
                param="constraint",
            ) from None
        return cls(tokenizer, pieces, ends)

    @cached_property
    def exits(self) -> Exits:
        """What leads to the end of answers."""
        return Exits(self._pieces, min(self.ends))


class Guide:
    """A rule compiled for a vocabulary; each answer follows it with a matcher of its own.

    Args:
        vocab: the vocabulary.
        kind: "json_schema", "json_object", "regex" or "lark".
        text: the rule.

    Raises:
        ConstraintError: the rule is faulty, too large, or asks what can't be enforced.
    """

    def __init__(self, vocab: GuidedVocab, kind: str, text: str) -> None:
        self._vocab = vocab
        if kind == "json_schema":
            self._first = _compile_schema(vocab, text)
        elif kind == "json_object":
            self._first = _made(vocab, _json_grammar({"type": "object"}))
        else:
            self._first = _compile_text(vocab, kind, text)

    @cached_property
    def n_shortest(self) -> int:
        """Tokens of a short answer; 0 if none was found."""
        return len(find_way(self.matcher(), self._vocab.exits, _LONGEST_WAY) or ())

    def matcher(self) -> GuidedMatcher:
        """Return a matcher at the beginning of an answer."""
        return GuidedMatcher(self._vocab, self._first.deep_copy())


class GuidedMatcher:
    """Follows one answer; see `Matcher`."""

    def __init__(self, vocab: GuidedVocab, matcher: Any) -> None:
        self.vocab = vocab
        self._matcher: Any = matcher
        self._bits = np.zeros((vocab.n_tokens + 31) // 32, np.uint32)

    @property
    def is_over(self) -> bool:
        """Say whether nothing but the end may follow."""
        return self._is_alive() and bool(self._matcher.is_stopped())

    def _is_alive(self) -> bool:
        # NOTE: in its error state llguidance says it is stopped and allows the end.
        return self._matcher is not None and not self._matcher.is_error()

    def allows(self, token: int) -> bool:
        """Say whether a token may come next; changes nothing."""
        if not self._is_alive():
            return False
        if self._matcher.is_stopped():
            return token in self.vocab.ends
        return bool(self._matcher.validate_tokens([token]))

    def mask(self, logits: npt.NDArray[np.float32]) -> bool:
        """Set what may not come next to -inf, in place; False if nothing is left."""
        bits = self.allowed_bits()
        if bits is None:
            logits.fill(-np.inf)
            return False
        n_tokens = self.vocab.n_tokens
        allowed = np.unpackbits(bits.view(np.uint8), bitorder="little")[:n_tokens].view(np.bool_)
        logits[:n_tokens][~allowed] = -np.inf
        logits[n_tokens:] = -np.inf
        return bool(logits.max() > -np.inf)

    def allowed_bits(self) -> npt.NDArray[np.uint32] | None:
        """Return a bit for each token, lowest first, valid until the next call; None = error."""
        if not self._is_alive():
            return None
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        return self._bits if self._is_alive() else None

    def accept(self, token: int) -> None:
        """Go on past a token that is allowed here."""
        if self._matcher is not None:
            self._matcher.consume_token(token)

    def close(self) -> None:
        """Let go of the native state."""
        self._matcher = None

    @property
    def error(self) -> str:
        """What went wrong inside; "" if nothing."""
        return "" if self._matcher is None else str(self._matcher.get_error())

    # -- looking ahead ------------------------------------------------------------------------

    def fork(self) -> GuidedMatcher:
        """Return a matcher in the same place that goes its own way."""
        return GuidedMatcher(self.vocab, self._matcher.deep_copy())

    @property
    def may_end(self) -> bool:
        """Say whether the end may follow."""
        return self._is_alive() and bool(self._matcher.is_accepting())


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise ConstraintError(
            "JSON schemas, regular expressions and Lark grammars need the package llguidance "
            f"({error}): install it with 'pip install \"llguidance>=1.9\"', or use a GBNF grammar",
            param="constraint",
        ) from None
    return llguidance


def _json_grammar(schema: dict[str, Any]) -> str:
    return json.dumps({"grammars": [{"json_schema": {**schema, "x-guidance": _JSON}}]})


def _made(vocab: GuidedVocab, grammar: str, limits: dict[str, int] = _LIMITS) -> Any:
    llguidance = _llguidance()
    return llguidance.LLMatcher(
        vocab.tokenizer, grammar, log_level=0, limits=llguidance.LLParserLimits(**limits)
    )


def _compile_schema(vocab: GuidedVocab, text: str) -> Any:
    schema = clean_schema(text)

    def complain(part: dict[str, Any]) -> str:
        first = _made(vocab, _json_grammar(part))
        return str(first.get_error()) or _probe(vocab, first)

    for pattern, at in schema.patterns.items():
        if pattern.count("{") > 1:  # PERF: only counts inside counts explode
            _check(at, complain({"type": "string", "pattern": pattern}))
    matcher = _made(vocab, _json_grammar(schema.to_dict()), _SCHEMA_LIMITS)
    complaint = matcher.get_error() or _probe(vocab, matcher)
    if complaint:
        at, complaint = schema.blame(complaint, complain)
        _check(at or "the schema", complaint)
    return matcher


def _check(at: str, complaint: str) -> None:
    if complaint:
        raise ConstraintError(f"{at}: {explain(complaint)}", param="json_schema")


def _compile_text(vocab: GuidedVocab, kind: str, text: str) -> Any:
    name = "regular expression" if kind == "regex" else "Lark grammar"
    size = len(text.encode("utf-8", "replace"))
    if size > MAX_BYTES:
        raise ConstraintError(
            f"the {name} has {size} bytes and at most {MAX_BYTES} are allowed", param=kind
        )
    try:
        if kind == "regex":
            grammar = _llguidance().LLMatcher.grammar_from_regex(text)
        else:
            grammar = _checked_lark(text)
        matcher = _made(vocab, grammar)
    except UnicodeEncodeError:
        raise ConstraintError(f"the {name} is not valid Unicode", param=kind) from None
    complaint = matcher.get_error() or _probe(vocab, matcher)
    if complaint:
        raise ConstraintError(f"the {name} can't be used: {explain(complaint)}", param=kind)
    return matcher


def _checked_lark(text: str) -> str:
    """Return a Lark grammar whose inline JSON schemas are checked as others are."""
    if text.lstrip().startswith("{"):
        raise ConstraintError(
            "a Lark grammar is wanted, not JSON: use a JSON schema constraint for a schema",
            param="lark",
        )
    parts, done = [], 0
    for found in re.finditer(r"%json\s*(?=\{)", text):
        if found.start() < done:
            continue
        try:
            _, end = json.JSONDecoder().raw_decode(text, found.end())
        except (ValueError, RecursionError):
            continue  # no schema, or one that llguidance will complain about
        schema = clean_schema(text[found.end() : end]).to_dict()
        parts += [text[done : found.end()], json.dumps({**schema, "x-guidance": _JSON})]
        done = end
    return "".join(parts) + text[done:]


def _probe(vocab: GuidedVocab, first: Any) -> str:
    """Take some steps and return what is said against the rule then, "" if nothing."""
    return _probe_along(vocab, first, 0.0) or _probe_along(vocab, first, 0.5)


def _probe_along(vocab: GuidedVocab, first: Any, where: float) -> str:
    matcher = GuidedMatcher(vocab, first.deep_copy())
    for _ in range(_N_PROBED):
        bits = matcher.allowed_bits()
        if bits is None:
            break
        allowed = np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little"))
        if not len(allowed):
            return "Unsatisfiable: no token may come"
        if matcher.may_end:
            return ""
        matcher.accept(int(allowed[int(where * len(allowed))]))
    return matcher.error
