"""Picks the tokens of one answer from rows of logits.

Owns the order in which processors, biases, samplers and the constraint meet a row. Doesn't know
sequences, batches or when an answer ends. Imports numpy, `core`, `llamalite.errors` and its own
siblings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import numpy.typing as npt

from llamalite.core.candidates import Ids, Logits, largest, peak
from llamalite.core.sampling import biases
from llamalite.engine.choosing import Chooser
from llamalite.engine.result import TokenLogprobs
from llamalite.errors import ConstraintError, FatalDecode, RequestError

if TYPE_CHECKING:
    from llamalite.constraint.matcher import Matcher
    from llamalite.core.context import Context
    from llamalite.core.vocab import Vocab
    from llamalite.engine.request import GenerationRequest, LogitsProcessor, Tokens

_NEXT_FEW = 64


class Unsatisfiable(ConstraintError):
    """The constraint and the other settings leave no token to choose."""


@dataclass(frozen=True, slots=True)
class Picked:
    """A token, and its log-probabilities if they were asked for."""

    token: int
    logprobs: TokenLogprobs | None = None


class Picker:
    """Picks the tokens of one answer; one thread at a time.

    Making one can take some milliseconds (DRY's sequence breakers, the first `ignore_eos` of a
    vocabulary), so it suits the thread that submits rather than the one that computes.

    Args:
        vocab: the vocabulary of the model.
        request: what is asked for; its constraint is left to `matcher`.
        n_ctx: what "the whole context" means for penalties.
        index: which answer of the request.
        matcher: follows this answer alone and is closed with the picker.

    Raises:
        InvalidParameter: a biased token isn't in the vocabulary.
        SymbolMissing: this build of libllama lacks a sampler that was asked for.
    """

    def __init__(
        self,
        vocab: Vocab,
        request: GenerationRequest,
        n_ctx: int,
        index: int = 0,
        matcher: Matcher | None = None,
    ) -> None:
        self._processors, self._n_logprobs = request.processors, request.logprobs
        self._biased, self._biases = biases(request.sampling, vocab)
        self._chooser = Chooser(request.sampling, vocab, n_ctx, index)
        self._matcher = matcher

    def prime(self, prompt: npt.NDArray[np.int32]) -> None:
        """Show the prompt to penalties and DRY; once, before the first token is picked.

        Args:
            prompt: int32[n] token ids.
        """
        self._chooser.prime(prompt)

    def pick(self, context: Context, row: int, tokens: Tokens) -> Picked:
        """Pick the next token and go on past it.

        Args:
            context: holds the logits.
            row: row of the last batch, as `Context.logits` takes it.
            tokens: prompt and answer until now; for the processors.

        Raises:
            Unsatisfiable: the constraint and the other settings leave no token.
            RequestError: a processor failed.
            FatalDecode: the logits are no numbers.
        """
        logits = context.logits(row)
        token = self._biased_pick(self._processed(logits, tokens) if self._processors else logits)
        self._chooser.accept(token)
        if self._matcher is not None:
            self._matcher.accept(token)
        if self._n_logprobs is None:
            return Picked(token)
        return Picked(token, logprobs_of(logits, token, self._n_logprobs))

    def close(self) -> None:
        """Free the samplers and the matcher; later calls do nothing."""
        self._chooser.close()
        if self._matcher is not None:
            self._matcher.close()

    def _processed(self, logits: Logits, tokens: Tokens) -> Logits:
        changed: Logits = logits.copy()
        known = tuple(np.asarray(tokens).tolist())
        for processor in self._processors:
            try:
                returned = processor(known, changed)
            except Exception as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                _fail(processor, f"raised {reason}", error)
            if returned is not None:
                _fail(processor, "returned something; it must change the row in place")
            most = changed.max()
            if not most < math.inf:
                _fail(processor, "left NaN or +inf in the row; use numbers, or -inf for never")
            if most == -math.inf:
                _fail(processor, "left no token to choose; leave some above -inf")
        return changed

    def _biased_pick(self, logits: Logits) -> int:
        if not len(self._biased):
            return self._constrained_pick(logits)
        # PERF: a few logits changed and put back, rather than a row copied.
        before = logits[self._biased]
        logits[self._biased] = before + self._biases
        try:
            return self._constrained_pick(logits)
        finally:
            logits[self._biased] = before

    def _constrained_pick(self, logits: Logits) -> int:
        # As llama.cpp does: sampled freely first, since most tokens fit; drawn again if not.
        token = self._chooser.choose(logits)
        if token is not None and self._matcher is not None and not self._matcher.allows(token):
            masked = self._masked(self._matcher, logits)
            token = None if masked is None else self._chooser.choose(masked)
        if token is None:
            raise Unsatisfiable(
                "the constraint and the other settings leave no token to choose: loosen it, or "
                "logit_bias, ignore_eos or the processors",
                param="constraint",
            )
        return token

    def _masked(self, matcher: Matcher, logits: Logits) -> Logits | None:
        """Return the row with only what the constraint allows, or None if that is nothing."""
        if self._chooser.is_greedy:
            # PERF: a grammar takes its time for each token, and one of the next few will do.
            ids = largest(logits, min(_NEXT_FEW, len(logits)))
            few = np.full(len(logits), -math.inf, np.float32)
            few[ids] = logits[ids]
            if matcher.mask(few):
                return few
        masked: Logits = logits.copy()
        return masked if matcher.mask(masked) else None


def logprobs_of(logits: Logits, token: int, k: int) -> TokenLogprobs:
    """Return the log-probability of a token and the k likeliest, the likeliest first.

    Args:
        logits: float32[n_vocab] as the model gave them.
        token: the token that stands there.
        k: 0 to n_vocab; more are cut to that.

    Raises:
        FatalDecode: the logits are no numbers.
    """
    most = peak(logits)
    if most == -math.inf:
        raise FatalDecode("the model leaves no token any probability: its file may be damaged")
    norm = most + math.log(np.exp(logits - np.float32(most)).sum(dtype=np.float64))
    ids: Ids = largest(logits, min(k, len(logits))) if k > 0 else np.empty(0, np.intp)
    top = zip(ids.tolist(), (logits[ids].astype(np.float64) - norm).tolist(), strict=True)
    return TokenLogprobs(token, float(logits[token]) - norm, tuple(top))


def _fail(processor: LogitsProcessor, complaint: str, cause: Exception | None = None) -> NoReturn:
    name = getattr(processor, "__qualname__", type(processor).__name__)
    raise RequestError(f"the logits processor {name} {complaint}", param="processors") from cause
