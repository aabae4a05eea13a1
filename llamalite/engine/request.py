"""What is asked of the engine, and how an engine is set up: frozen dataclasses, checked when made.

Imports the standard library, `llamalite.config`, `llamalite.constraint` and `llamalite.errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llamalite.config import SamplingConfig
from llamalite.constraint.spec import Constraint
from llamalite.errors import InvalidParameter

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Tokens = Sequence[int] | npt.NDArray[np.int32]

LogitsProcessor = Callable[[Sequence[int], Any], None]
"""Called with the tokens so far (prompt and answer) and float32[n_vocab] to change in place."""

MAX_CHOICES = 128
MAX_LOGPROBS = 100


@dataclass(frozen=True)
class GenerationRequest:
    """One prompt to continue, n times.

    Attributes:
        prompt: token ids, at least one.
        sampling: how tokens are chosen; `sampling.grammar` is one way to constrain them.
        n: number of answers; the prompt is computed once. Answer i of a seeded request has
            seed + i.
        constraint: what the answer must follow, in place of `sampling.grammar`.
        think_end: text after which the constraint begins to hold (such as "</think>"); None = it
            holds from the first token on.
        stop_tokens: token ids that end the answer, besides the model's own; not part of it.
        logprobs: number of likeliest tokens to report with each token, 0 = the chosen one alone;
            None = no log-probabilities.
        prompt_logprobs: the same for each token of the prompt but the first. What is reported is
            computed, never taken from the cache.
        priority: higher goes first; equal ones in order of arrival.
        salt: prompts share computed prefixes only with prompts of the same salt.
        cache: whether computed prefixes may be used.
        time_limit_s: seconds from submission after which the answer ends with "time_limit".
        special: write control tokens out in the text.
        processors: called one after another before sampling; in-process engines only.

    Raises:
        InvalidParameter: a value is out of range; `param` names it.
    """

    prompt: Tokens
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    n: int = 1
    constraint: Constraint | None = None
    think_end: str | None = None
    stop_tokens: tuple[int, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    priority: int = 0
    salt: str = ""
    cache: bool = True
    time_limit_s: float | None = None
    special: bool = False
    processors: tuple[LogitsProcessor, ...] = ()

    def __post_init__(self) -> None:
        _check("n", self.n, 1, MAX_CHOICES)
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                _check(name, getattr(self, name), 0, MAX_LOGPROBS)
        _check("priority", self.priority, -(2**31), 2**31 - 1)
        if self.time_limit_s is not None and not self.time_limit_s > 0:
            raise InvalidParameter(
                f"time_limit_s must be above 0, not {self.time_limit_s!r}", param="time_limit_s"
            )
        if self.constraint is not None and self.sampling.grammar is not None:
            raise InvalidParameter(
                "a request can have a grammar or another constraint, not both", param="grammar"
            )


@dataclass(frozen=True)
class EmbeddingRequest:
    """Texts to embed, each as token ids.

    Attributes:
        prompts: token ids of each text.
        pooling: "mean", "cls", "last" or "none" (the last token's row); None = as the model says.
        priority: higher goes first among embeddings; equal ones in order of arrival.

    Raises:
        InvalidParameter: a value is out of range; `param` names it.
    """

    prompts: Sequence[Tokens]
    pooling: str | None = None
    priority: int = 0

    def __post_init__(self) -> None:
        _check("priority", self.priority, -(2**31), 2**31 - 1)


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is set up.

    Attributes:
        n_parallel: sequences that are computed at once.
        n_queue: answers and requests for embeddings that may wait; more raise QueueFull.
        step_budget_s: seconds a step may take while others wait for their next token.
        kv_unified: one pool of cache cells for all sequences (True), a share of n_ctx cells for
            each (False), or as fits the model and machine (None).
        n_cells: cells of the pool; None = n_ctx for each sequence. A smaller pool can run full:
            then the youngest sequence is preempted and resumed later.
        n_cached: sequences kept besides the running ones for their prefixes (pool only).
        reuse: "all" reuses every computed token; "exact" only such as a fresh computation would
            give bit by bit (not tokens computed one by one as an answer); "off" none.
        adapt_threads: change the number of decode threads when others use the processor.

    Raises:
        InvalidParameter: a value is out of range; `param` names it.
    """

    n_parallel: int = 1
    n_queue: int = 256
    step_budget_s: float = 0.1
    kv_unified: bool | None = None
    n_cells: int | None = None
    n_cached: int | None = None
    reuse: str = "all"
    adapt_threads: bool = True

    def __post_init__(self) -> None:
        _check("n_parallel", self.n_parallel, 1, 256)
        _check("n_queue", self.n_queue, 0, 1_000_000)
        if not 0.001 <= self.step_budget_s <= 60:
            raise InvalidParameter(
                f"step_budget_s is {self.step_budget_s!r}, not in [0.001, 60]",
                param="step_budget_s",
            )
        for name in ("n_cells", "n_cached"):
            if getattr(self, name) is not None:
                _check(name, getattr(self, name), 0, 2**31 - 1)
        if self.reuse not in ("all", "exact", "off"):
            raise InvalidParameter(
                f"reuse is {self.reuse!r}, none of all, exact, off", param="reuse"
            )


def _check(name: str, value: Any, low: int, high: int) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        raise InvalidParameter(
            f"{name} is {value!r}, no whole number in [{low}, {high}]", param=name
        )
