"""One answer on its way: its tokens, how far it is computed, when what happened.

Owns what is known of a sequence between steps, and how it ends. Doesn't know batches, slots or
other sequences. Imports numpy, `core` for types, `llamalite.errors` and its siblings.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llamalite.engine.answer import AnswerText
from llamalite.engine.result import Delta, Timings, TokenLogprobs, Usage
from llamalite.errors import ConstraintError

if TYPE_CHECKING:
    from llamalite.constraint.matcher import Matcher
    from llamalite.core.vocab import Vocab
    from llamalite.engine.handle import Sink
    from llamalite.engine.picking import Picked, Picker
    from llamalite.engine.request import GenerationRequest
    from llamalite.engine.slots import Lease

_ids = itertools.count(1)


class Sequence:
    """An answer of a request.

    Args:
        request_id: number of the request.
        index: which of its answers.
        prompt: int32[n], n >= 1.
        limit: most tokens the answer may have.
        submitted: when the request came; all times are seconds of one clock.

    Attributes:
        id: number of the sequence, unique in this process.
        tokens: the answer so far.
        lease: its slot, or None while it has none.
        prompt_logprobs: of the prompt's tokens computed so far.
        is_told: whether its end has been delivered.
    """

    def __init__(
        self,
        request_id: int,
        index: int,
        request: GenerationRequest,
        prompt: npt.NDArray[np.int32],
        limit: int,
        picker: Picker,
        matcher: Matcher | None,
        vocab: Vocab,
        sink: Sink,
        submitted: float,
    ) -> None:
        self.id = next(_ids)
        self.request_id, self.index, self.request = request_id, index, request
        self.prompt, self.limit, self.sink = prompt, limit, sink
        self.tokens: list[int] = []
        self.lease: Lease | None = None
        self.prompt_logprobs: list[TokenLogprobs] = []
        self.is_told = False
        self._picker, self._matcher, self._vocab = picker, matcher, vocab
        self._text = AnswerText(vocab, request.sampling.stop, special=request.special)
        self._has_said_prompt = False
        self._n_cached: int | None = None
        self._n_preempted = 0
        self._submitted = submitted
        self._started: float | None = None
        self._first: float | None = None
        self._last = submitted
        self.gap_s: float | None = None
        self._longest_gap_s = 0.0

    @property
    def picker(self) -> Picker:
        """What chooses its tokens."""
        return self._picker

    @property
    def n_known(self) -> int:
        """Tokens of prompt and answer."""
        return len(self.prompt) + len(self.tokens)

    @property
    def n_computed(self) -> int:
        """Tokens that are in the cache."""
        return 0 if self.lease is None else self.lease.n_computed

    @property
    def is_decoding(self) -> bool:
        """Say whether only the token chosen last is to be computed."""
        return bool(self.tokens) and self.n_known - self.n_computed == 1

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Say whether every row of its prompt is needed."""
        return self.request.prompt_logprobs is not None and self.index == 0

    def known(self) -> npt.NDArray[np.int32]:
        """Return prompt and answer, int32[n_known]."""
        if not self.tokens:
            return self.prompt
        return np.concatenate([self.prompt, np.asarray(self.tokens, np.int32)])

    def next_tokens(self, count: int) -> npt.NDArray[np.int32]:
        """Return the next tokens to compute, int32[count]."""
        start, n_prompt = self.n_computed, len(self.prompt)
        if start >= n_prompt:
            return np.asarray(self.tokens[start - n_prompt : start - n_prompt + count], np.int32)
        if start + count <= n_prompt:
            return self.prompt[start : start + count]
        return self.known()[start : start + count]

    def start(self, now: float) -> None:
        """Note that its first tokens are being computed."""
        if self._started is None:
            self._started = now
            self._n_cached = self.lease.n_cached if self.lease is not None else 0

    def preempted(self) -> None:
        """Note that it lost its slot."""
        self.lease = None
        self._n_preempted += 1

    @property
    def times_out_at(self) -> float | None:
        """When its time is up, or None."""
        limit_s = self.request.time_limit_s
        return None if limit_s is None else self._submitted + limit_s

    def take(self, picked: Picked, now: float) -> Delta:
        """Add the token that was chosen; the delta has a finish reason if that ended it."""
        self.gap_s = None if self._first is None else now - self._last
        self._longest_gap_s = max(self._longest_gap_s, self.gap_s or 0.0)
        self._last = now
        if self._first is None:
            self._first = now
        token = picked.token
        if self._vocab.is_eog(token):
            return self.finish("stop")
        if token in self.request.stop_tokens:
            return self.finish("stop", stop=token)
        self.tokens.append(token)
        text = self._text.feed(token)
        logprobs = () if picked.logprobs is None else (picked.logprobs,)
        if self._text.stop is not None:
            return self.finish("stop", text, (token,), logprobs)
        try:
            is_over = self._matcher is not None and self._matcher.is_over
        except ConstraintError:
            return self.finish("constraint", text, (token,), logprobs)
        if is_over:
            return self.finish("stop", text, (token,), logprobs)
        if len(self.tokens) >= self.limit:
            return self.finish("length", text, (token,), logprobs)
        return Delta(self.index, text, (token,), logprobs, self._said_prompt_logprobs())

    def finish(
        self,
        reason: str,
        text: str = "",
        tokens: tuple[int, ...] = (),
        logprobs: tuple[TokenLogprobs, ...] = (),
        stop: int | None = None,
    ) -> Delta:
        """End it and return its last delta."""
        text += self._text.end()
        matched = self._text.stop
        self._picker.close()
        if self._matcher is not None:
            self._matcher.close()
        return Delta(
            index=self.index,
            text=text,
            tokens=tokens,
            logprobs=logprobs,
            prompt_logprobs=self._said_prompt_logprobs(),
            finish_reason="stop" if matched is not None and reason == "length" else reason,
            stop=matched if stop is None else stop,
            usage=Usage(len(self.prompt), len(self.tokens), self._n_cached or 0),
            timings=self._timings(),
        )

    def _said_prompt_logprobs(self) -> tuple[TokenLogprobs, ...] | None:
        """Return them with the first delta that comes, and only then."""
        if not self.wants_prompt_logprobs or self._has_said_prompt:
            return None
        self._has_said_prompt = True
        return tuple(self.prompt_logprobs)

    def _timings(self) -> Timings:
        started = self._submitted if self._started is None else self._started
        first = self._last if self._first is None else self._first
        prefill, decode = max(first - started, 0.0), self._last - first
        n_prefilled, n_after = len(self.prompt) - (self._n_cached or 0), len(self.tokens) - 1
        return Timings(
            queue_s=started - self._submitted,
            ttft_s=0.0 if self._first is None else first - self._submitted,
            prefill_s=prefill,
            decode_s=decode,
            longest_gap_s=self._longest_gap_s,
            prefill_tokens_per_s=n_prefilled / prefill if prefill > 0 else 0.0,
            decode_tokens_per_s=n_after / decode if n_after > 0 and decode > 0 else 0.0,
            n_preempted=self._n_preempted,
        )
