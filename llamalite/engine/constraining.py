"""From a request's constraint to matchers for its answers.

Owns which kind of constraint is enforced by what, and one prepared vocabulary per model. Imports
`llamalite.constraint`, `llamalite.core` and its siblings.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from llamalite.constraint.delayed import DelayedMatcher
from llamalite.constraint.guided import Guide, GuidedVocab
from llamalite.constraint.landing import LandingMatcher
from llamalite.constraint.matcher import Matcher
from llamalite.constraint.spec import Constraint
from llamalite.core.grammar import GrammarMatcher

if TYPE_CHECKING:
    from llamalite.core.vocab import Vocab
    from llamalite.engine.request import GenerationRequest

_vocabs: weakref.WeakKeyDictionary[Vocab, GuidedVocab] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def prepare_vocab(vocab: Vocab) -> GuidedVocab:
    """Return the vocabulary as llguidance takes it, made on the first call for it.

    That call takes about 0.4 s for 50,000 tokens and 2 s for 260,000, and holds up other Python
    threads for half of that.

    Raises:
        ConstraintError: llguidance is missing or can't take this vocabulary.
    """
    with _lock:
        guided = _vocabs.get(vocab)
        if guided is None:
            ends = sorted(vocab.eog_tokens)
            guided = GuidedVocab.from_llama(vocab.all_pieces(), *vocab.addresses, ends)
            _vocabs[vocab] = guided
        return guided


def compile_constraint(
    request: GenerationRequest, vocab: Vocab, limit: int | None = None
) -> Callable[[], Matcher] | None:
    """Compile what a request's answers must follow; None if they are free.

    May take a second for large schemas; other threads go on meanwhile.

    Args:
        request: what is asked for.
        vocab: the vocabulary of its answers.
        limit: most tokens an answer may have; near them it is steered to an end, unless it follows
            a GBNF grammar. None = as many as it likes.

    Returns:
        A function that gives a new matcher for each answer.

    Raises:
        ConstraintError: the constraint is faulty or can't be enforced.
    """
    constraint = request.constraint
    if constraint is None:
        if request.sampling.grammar is None:
            return None
        constraint = Constraint("gbnf", request.sampling.grammar, request.sampling.grammar_root)
    with vocab.in_use():
        make = _maker(constraint, vocab, limit)
    begin = request.think_end
    if not begin:
        return lambda: make(0)
    ends = vocab.eog_tokens
    return lambda: DelayedMatcher(make, begin, lambda t: vocab.piece(t, special=True), ends)


def _maker(constraint: Constraint, vocab: Vocab, limit: int | None) -> Callable[[int], Matcher]:
    """Return a function that makes a matcher, given how many tokens came before."""
    if constraint.kind == "gbnf":
        first = GrammarMatcher(vocab, constraint.text, constraint.root)
        return lambda _n_before: first.clone()
    guide = Guide(prepare_vocab(vocab), constraint.kind, constraint.text)
    if limit is None:
        return lambda _n_before: guide.matcher()
    most, shortest = limit, guide.n_shortest
    return lambda n_before: LandingMatcher(guide.matcher(), most - n_before, shortest)
