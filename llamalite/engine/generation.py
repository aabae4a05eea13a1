"""Generating one sequence: prefill, then sample and decode until something ends it.

Imports numpy, `core`, `text`, `llamalite.errors` and `llamalite.config`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from llamalite.core.batch import Batch
from llamalite.core.sampling import build_chain
from llamalite.errors import ContextLengthExceeded, EngineClosed, EngineError, InvalidParameter
from llamalite.text.stop import StopStrings
from llamalite.text.utf8 import Utf8Stream

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from llamalite.config import SamplingConfig
    from llamalite.core.context import Context
    from llamalite.core.sampler import SamplerChain

_PREFILL_CHUNK = 512
_WATCHED_TOKENS = 64  # PERF: shorter parts end soon by themselves


@dataclass(frozen=True)
class Usage:
    """Token counts of a request."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Timings:
    """Where the time went, in seconds; rates are tokens per second, 0.0 where there were none.

    Attributes:
        load_s: loading the model and making its context (once per LLM).
        ttft_s: from the call to the first token.
        prefill_s: computing the prompt.
        decode_s: all steps after the first token.
        prefill_tokens_per_s: prompt tokens over prefill_s.
        decode_tokens_per_s: tokens after the first over decode_s.
    """

    load_s: float
    ttft_s: float
    prefill_s: float
    decode_s: float
    prefill_tokens_per_s: float
    decode_tokens_per_s: float


@dataclass(frozen=True)
class GenerationResult:
    """What a generation gave.

    Attributes:
        text: the generated text, without the stop string that ended it.
        tokens: the generated token ids, the end-of-generation token left out.
        finish_reason: "stop" (end of generation or a stop string), "length" (max_tokens or the
            context is full) or "cancelled" (closed before its end).
        usage: token counts.
        timings: where the time went.
    """

    text: str
    tokens: list[int] = field(repr=False)
    finish_reason: str
    usage: Usage
    timings: Timings = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts and lists, ready for JSON."""
        usage = {**asdict(self.usage), "total_tokens": self.usage.total_tokens}
        return {**asdict(self), "usage": usage}


class GenerationStream(Iterator[str]):
    """The text of a generation, piece by piece as it comes.

    Pieces are never empty, never split a character and never show part of a stop string.
    """

    def __init__(self, generation: Generation, lock: threading.RLock) -> None:
        self._generation = generation
        self._pieces = generation.run()
        self._lock = lock
        self._superseded = False

    def __next__(self) -> str:
        with self._lock:
            if self._superseded:
                raise EngineClosed(
                    "another generation was started on this LLM before this one had ended: "
                    "read one to its end first, or use another LLM"
                )
            return next(self._pieces)

    def close(self) -> None:
        """Stop generating; `result` then says "cancelled" unless it had ended."""
        with self._lock:
            try:
                self._pieces.close()
            except ValueError:
                raise EngineError(
                    "this stream can't be closed from within a call on it: close it after the "
                    "call has returned"
                ) from None
            self._generation.finish("cancelled")

    def supersede(self) -> None:
        """Close it because another generation needs the context; reading on raises."""
        self.close()
        self._superseded = self.result.finish_reason == "cancelled"

    @property
    def result(self) -> GenerationResult:
        """What has been generated so far, whole once the iteration has ended."""
        return self._generation.result()


class Generation:
    """One request on one sequence of a context.

    Args:
        context: with room for the prompt; its memory of the sequence is overwritten.
        batch: at least as large as a prefill chunk.
        prompt: int32[n] token ids, n >= 1.
        config: how to sample.
        load_s: reported in the timings.

    Raises:
        ContextLengthExceeded: the prompt leaves no room for an answer.
        InvalidParameter: the prompt is empty.
        ConstraintError: the grammar can't be used.
    """

    def __init__(
        self,
        context: Context,
        batch: Batch,
        prompt: npt.NDArray[np.int32],
        config: SamplingConfig,
        load_s: float = 0.0,
    ) -> None:
        self._started = time.perf_counter()
        model = context.model
        if not context.memory.exists or model.has_encoder:
            raise InvalidParameter(
                f"{model.path.name} ({model.description}) is no decoder-only model and can't "
                "generate here: use it for embeddings",
                param="model",
            )
        if not len(prompt):
            raise InvalidParameter("the prompt is empty: give at least one token", param="prompt")
        if len(prompt) >= context.n_ctx:
            raise ContextLengthExceeded(len(prompt), context.n_ctx)
        self._context, self._batch = context, batch
        self._prompt, self._config, self._load_s = prompt, config, load_s
        self._limit = context.n_ctx - len(prompt)
        if config.max_tokens is not None:
            self._limit = min(self._limit, config.max_tokens)
        self._utf8, self._stops = Utf8Stream(), StopStrings(config.stop)
        self._texts: list[str] = []
        self.tokens: list[int] = []
        self.finish_reason: str | None = None
        self._prefilled = self._first = self._last = self._started
        self._chain: SamplerChain = build_chain(config, model.vocab, context.n_ctx)

    def run(self) -> Generator[str, None, None]:
        """Generate, yielding text as it becomes final."""
        try:
            if self._limit == 0:
                self.finish("length")
                return
            self._prefill()
            yield from self._decode()
        finally:
            self._chain.close()

    def _prefill(self) -> None:
        context, batch, prompt = self._context, self._batch, self._prompt
        context.memory.clear()
        if any(name in {"penalties", "dry"} for name in self._chain.names):
            for token in prompt.tolist():
                self._chain.accept(token)
        chunk = min(_PREFILL_CHUNK, batch.capacity)
        for start in range(0, len(prompt), chunk):
            part = prompt[start : start + chunk]
            last = start + chunk >= len(prompt)
            batch.clear()
            batch.extend(part, start, outputs="last" if last else "none")
            context.decode(batch, interruptible=len(part) >= _WATCHED_TOKENS)
        self._prefilled = time.perf_counter()

    def _decode(self) -> Iterator[str]:
        context, batch, chain = self._context, self._batch, self._chain
        vocab, stops, utf8 = context.model.vocab, self._stops, self._utf8
        pos = len(self._prompt)
        while True:
            token = chain.sample(context)
            self._last = time.perf_counter()
            if not self.tokens:
                self._first = self._last
            if vocab.is_eog(token):
                yield from self._end("stop")
                return
            self.tokens.append(token)
            text = stops.feed(utf8.decode(vocab.piece(token)))
            if text:
                self._texts.append(text)
                yield text
            if stops.matched is not None:
                self.finish("stop")
                return
            if len(self.tokens) >= self._limit:
                yield from self._end("length")
                return
            batch.clear()
            batch.add(token, pos, output=True)
            context.decode(batch)
            pos += 1

    def _end(self, reason: str) -> Iterator[str]:
        rest = self._stops.feed(self._utf8.flush())
        if self._stops.matched is None:
            rest += self._stops.flush()
        self.finish("stop" if self._stops.matched is not None else reason)
        if rest:
            self._texts.append(rest)
            yield rest

    def finish(self, reason: str) -> None:
        """Record why it ended; the first reason stays."""
        self.finish_reason = self.finish_reason or reason

    def result(self) -> GenerationResult:
        """Return what there is so far."""
        prefill = self._prefilled - self._started
        decode = self._last - self._first
        steps = len(self.tokens) - 1
        return GenerationResult(
            text="".join(self._texts),
            tokens=list(self.tokens),
            finish_reason=self.finish_reason or "cancelled",
            usage=Usage(len(self._prompt), len(self.tokens)),
            timings=Timings(
                load_s=self._load_s,
                ttft_s=self._first - self._started,
                prefill_s=prefill,
                decode_s=decode,
                prefill_tokens_per_s=len(self._prompt) / prefill if prefill > 0 else 0.0,
                decode_tokens_per_s=steps / decode if steps > 0 and decode > 0 else 0.0,
            ),
        )
