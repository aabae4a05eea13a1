"""LLM: the synchronous Python API.

Puts the layers together: resolves a model, finds or fetches libllama, makes one context, renders
chat templates, and generates. Imports everything below it; nothing native is loaded before an LLM
is made.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llamalite.config import SamplingConfig
from llamalite.config.layers import effective, load_config
from llamalite.engine.embedding import check_pooling
from llamalite.engine.engine import Engine
from llamalite.engine.prompting import Message, Prompting
from llamalite.engine.request import EmbeddingRequest, EngineOptions, GenerationRequest
from llamalite.engine.result import GenerationResult
from llamalite.engine.stream import GenerationStream
from llamalite.libs.transfer.progress import say_on_stderr
from llamalite.models.resolve import Resolved, resolve

if TYPE_CHECKING:
    from typing import Literal

    Pooling = Literal["none", "mean", "cls", "last"]

__all__ = ["LLM", "GenerationResult", "GenerationStream"]

Prompt = str | Sequence[int]


class LLM:
    """A model ready to generate, in this process.

    Any thread may call; up to `n_parallel` generations are computed together, others wait for
    their turn. Whoever waits for text computes it, for all of them. Tokens that an earlier prompt
    or answer had at its beginning are not computed again.

    Args:
        model: a path to a GGUF file, or a name such as "smollm2:135m" that is fetched if needed;
            None = the configured default model.
        n_ctx: context length in tokens, for each generation; 0 = the model's own.
        n_batch: most tokens computed in one call.
        n_ubatch: most tokens computed at once.
        n_threads: threads for decoding.
        n_threads_batch: threads for prefill.
        n_gpu_layers: layers on the GPU; -1 = all, and a number above 0 without a GPU is an error.
        cache_type_k: type of cached keys: "f16", "q8_0" …; `cache_type_v` of the values.
        cache_type_v: types but f16, bf16 and f32 need flash attention.
        chat_template: name or Jinja text of a template to use instead of the model's own.
        pooling: how `embed` pools; None = as the model says, else mean.
        n_parallel: generations computed at once, each with a context of its own.
        loras: (path, scale) of adapters to apply, instead of those of a preset.
        force: load the model even if it doesn't fit into memory.
        say: gets one line for everything worth knowing (what is fetched, which template …);
            None = printed to stderr.

    What is None is as configured: by environment variables, for this model, or in the
    configuration file (`llamalite config show`).

    Attributes:
        sampling: how tokens are chosen where a request doesn't say, as configured.

    Raises:
        DoesNotFit: it needs more memory than is free; both numbers are in the message.
        LlamaliteError: see `llamalite.errors`; the message says what to do.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Resolved | None = None,
        *,
        n_ctx: int | None = None,
        n_batch: int | None = None,
        n_ubatch: int | None = None,
        n_threads: int | None = None,
        n_threads_batch: int | None = None,
        n_gpu_layers: int | None = None,
        cache_type_k: str | None = None,
        cache_type_v: str | None = None,
        chat_template: str | None = None,
        pooling: Pooling | None = None,
        n_parallel: int = 1,
        loras: Iterable[tuple[str | os.PathLike[str], float]] | None = None,
        force: bool = False,
        say: Callable[[str], None] | None = None,
    ) -> None:
        started = time.perf_counter()
        check_pooling(pooling)
        given = {
            "n_ctx": n_ctx,
            "n_batch": n_batch,
            "n_ubatch": n_ubatch,
            "n_threads": n_threads,
            "n_threads_batch": n_threads_batch,
            "n_gpu_layers": n_gpu_layers,
            "cache_type_k": cache_type_k,
            "cache_type_v": cache_type_v,
            "chat_template": chat_template,
            "adapters": tuple(loras) if isinstance(loras, Iterable) else loras,
        }
        given = {name: value for name, value in given.items() if value is not None}
        effective(given)  # a wrong value is said before anything is fetched
        self._say = say or say_on_stderr
        if not isinstance(model, Resolved):
            model = resolve(load_config().default_model if model is None else model, say=say)
        options = EngineOptions(n_parallel=n_parallel)
        self._engine = Engine.load(model, options, say=say, force=force, **given)
        loaded = self._loaded = self._engine.loaded
        self.model_path, self.library, self._model = loaded.path, loaded.library, loaded.model
        self._pooling = pooling
        self.sampling = loaded.defaults.sampling
        self._prompting = Prompting(loaded.model.vocab, loaded.template, loaded.defaults, self._say)
        asked = loaded.defaults.settings.get("n_ctx")
        if asked and self.n_ctx != asked:
            self._say(f"context: {self.n_ctx} tokens, because libllama rounds {asked} up")
        self.load_s = time.perf_counter() - started

    @property
    def system_prompt(self) -> str | None:
        """System message of conversations that begin without one, or None."""
        return self._prompting.system_prompt

    @property
    def n_ctx(self) -> int:
        """Context length in tokens."""
        return self._engine.facts.n_ctx

    @property
    def n_threads(self) -> int:
        """Threads used for decoding."""
        return self._engine.facts.n_threads

    @property
    def library_release(self) -> str:
        """Upstream's tag of the libllama in use."""
        return self.library.release

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the devices that library offers, such as "CPU"."""
        return tuple(device.name for device in self.library.devices())

    def tokenize(
        self, text: str, *, add_special: bool = True, parse_special: bool = True
    ) -> list[int]:
        """Turn text into token ids.

        Args:
            text: any text.
            add_special: add BOS/EOS as the model is configured to.
            parse_special: read control tokens written out in the text as such.
        """
        return self._model.vocab.tokenize(
            text, add_special=add_special, parse_special=parse_special
        )

    def detokenize(self, tokens: Iterable[int]) -> str:
        """Turn token ids into text, control tokens written out."""
        return self._model.vocab.detokenize(tokens)

    def generate(
        self, prompt: Prompt, sampling: SamplingConfig | None = None, **overrides: Any
    ) -> GenerationResult:
        """Continue a prompt as it stands, without a chat template.

        Args:
            prompt: text (control tokens in it are read as such) or token ids.
            sampling: how tokens are chosen; None = as configured.
            overrides: fields of SamplingConfig to change, such as temperature=0.

        Raises:
            ContextLengthExceeded: the prompt doesn't fit, with both numbers.
            InvalidParameter: a parameter is unknown or out of range.
            ConstraintError: the grammar is faulty or can't be met.
        """
        return _drain(self.stream(prompt, sampling, **overrides))

    def stream(
        self, prompt: Prompt, sampling: SamplingConfig | None = None, **overrides: Any
    ) -> GenerationStream:
        """Continue a prompt, giving text as it comes; parameters and errors as in generate."""
        tokens = self._prompting.of_text(prompt) if isinstance(prompt, str) else prompt
        return self._start(tokens, sampling, overrides)

    def chat(
        self, messages: Sequence[Message], sampling: SamplingConfig | None = None, **overrides: Any
    ) -> GenerationResult:
        """Answer a conversation.

        Args:
            messages: dicts with "role" and "content", oldest first. What a preset puts before a
                conversation comes before them, the configured system message if they have none.
            sampling: how tokens are chosen; None = as configured.
            overrides: fields of SamplingConfig to change.

        Raises:
            TemplateError: the model's chat template refuses the messages.
            ContextLengthExceeded: the conversation doesn't fit.
        """
        return _drain(self.stream_chat(messages, sampling, **overrides))

    def stream_chat(
        self, messages: Sequence[Message], sampling: SamplingConfig | None = None, **overrides: Any
    ) -> GenerationStream:
        """Answer a conversation, giving text as it comes; otherwise as chat."""
        return self._start(
            self.tokenize_chat(self._prompting.opened(messages)), sampling, overrides
        )

    def render_chat(self, messages: Sequence[Message], **kwargs: Any) -> str:
        """Return the text the chat template makes of a conversation.

        Args:
            messages: dicts with "role" and "content".
            kwargs: passed to the template (tools, add_generation_prompt, …).
        """
        return self._prompting.render(messages, **kwargs)

    def tokenize_chat(self, messages: Sequence[Message], **kwargs: Any) -> list[int]:
        """Return the tokens of a conversation, with exactly one BOS if the model wants one."""
        return self._prompting.of_messages(messages, **kwargs)

    def _start(
        self, tokens: Sequence[int], sampling: SamplingConfig | None, overrides: dict[str, Any]
    ) -> GenerationStream:
        config = (sampling or self.sampling).replace(**overrides)
        return GenerationStream(
            self._engine.submit(GenerationRequest(tokens, config)), self._with_load_time
        )

    def _with_load_time(self, result: GenerationResult) -> GenerationResult:
        return replace(result, timings=replace(result.timings, load_s=self.load_s))

    def embed(self, texts: str | Sequence[str]) -> npt.NDArray[np.float32]:
        """Return normalised embeddings, float32[n_texts, n_embd_out].

        Args:
            texts: one text or several; each must fit the batch.

        Raises:
            ContextLengthExceeded: a text is longer than n_batch or the context.
        """
        items = [texts] if isinstance(texts, str) else list(texts)
        prompts = [self.tokenize(text) for text in items]
        return self._engine.embed(EmbeddingRequest(prompts, self._pooling)).result()

    def close(self) -> None:
        """Free the model; later calls raise EngineClosed."""
        self._engine.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def _drain(stream: GenerationStream) -> GenerationResult:
    for _ in stream:
        pass
    return stream.result
