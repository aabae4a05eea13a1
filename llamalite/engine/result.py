"""What the engine gives back: pieces of answers as they come, and how they ended.

Imports the standard library alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

FINISH_REASONS = ("stop", "length", "cancelled", "time_limit", "constraint")
"""End of generation or a stop string; max_tokens or a full context; closed before its end; the
request's time ran out; the constraint and the other settings leave no token to choose."""


@dataclass(frozen=True)
class TokenLogprobs:
    """Log-probabilities at one place, of the unchanged model (before penalties and temperature).

    Attributes:
        token: the token that stands there.
        logprob: natural logarithm of its probability.
        top: (token, logprob) of the likeliest, likeliest first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Usage:
    """Token counts of a request.

    Attributes:
        prompt_tokens: tokens of the prompt.
        completion_tokens: tokens generated, of all answers.
        cached_tokens: tokens of the prompt that were not computed anew.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Timings:
    """Where the time went, in seconds; rates are tokens per second, 0.0 where there were none.

    Attributes:
        load_s: loading the model and making its context (once per LLM).
        queue_s: from submission until the first of its tokens was computed.
        ttft_s: from submission to the first token of the answer.
        prefill_s: computing the prompt.
        decode_s: all steps after the first token.
        longest_gap_s: longest time between two tokens.
        prefill_tokens_per_s: prompt tokens computed over prefill_s.
        decode_tokens_per_s: tokens after the first over decode_s.
        n_preempted: how often it had to make room for others.
    """

    load_s: float = 0.0
    queue_s: float = 0.0
    ttft_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    longest_gap_s: float = 0.0
    prefill_tokens_per_s: float = 0.0
    decode_tokens_per_s: float = 0.0
    n_preempted: int = 0


@dataclass(frozen=True)
class Delta:
    """What one step brought for one answer of a request.

    Attributes:
        index: which answer, 0 to n - 1.
        text: final text, which never splits a character or shows part of a stop string; may be
            empty.
        tokens: tokens chosen in this step, the one that ended the answer left out.
        logprobs: one for each of `tokens`, if asked for.
        prompt_logprobs: of the prompt's tokens but the first; with the first delta, if asked for.
        finish_reason: one of FINISH_REASONS with the last delta of this answer, else None.
        stop: the stop string or stop token that ended it, or None.
        usage: with the last delta of this answer.
        timings: with the last delta of this answer.
    """

    index: int = 0
    text: str = ""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = None
    finish_reason: str | None = None
    stop: str | int | None = None
    usage: Usage | None = None
    timings: Timings | None = None


@dataclass(frozen=True)
class GenerationResult:
    """One whole answer.

    Attributes:
        text: the generated text, without the stop string that ended it.
        tokens: the generated token ids, the end-of-generation token left out.
        finish_reason: see FINISH_REASONS.
        usage: token counts.
        timings: where the time went.
        logprobs: one for each of `tokens`, if asked for.
        prompt_logprobs: of the prompt's tokens but the first, if asked for.
        stop: the stop string or stop token that ended it, or None.
    """

    text: str
    tokens: list[int] = field(repr=False)
    finish_reason: str
    usage: Usage
    timings: Timings = field(repr=False)
    logprobs: tuple[TokenLogprobs, ...] = field(default=(), repr=False)
    prompt_logprobs: tuple[TokenLogprobs, ...] | None = field(default=None, repr=False)
    stop: str | int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts and lists, ready for JSON."""
        usage = {**asdict(self.usage), "total_tokens": self.usage.total_tokens}
        return {**asdict(self), "usage": usage}
