"""LLM: the synchronous Python API.

Puts the layers together: resolves a model, finds or fetches libllama, makes one context, renders
chat templates, and generates. Imports everything below it; nothing native is loaded before an LLM
is made.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llamalite.config import SamplingConfig
from llamalite.core.adapter import LoraAdapter
from llamalite.core.batch import Batch
from llamalite.core.context import Context
from llamalite.core.model import Model
from llamalite.core.ready import ready_library
from llamalite.engine.embedding import Embedder, check_pooling
from llamalite.engine.generation import Generation, GenerationResult, GenerationStream
from llamalite.engine.threads import default_n_threads
from llamalite.errors import InvalidParameter, ModelLoadError
from llamalite.ffi.library import Library
from llamalite.gguf import GGUFReader
from llamalite.gguf.sanity import check_runnable
from llamalite.libs.transfer.progress import say_on_stderr
from llamalite.models.resolve import resolve_model
from llamalite.text.bos import needs_bos
from llamalite.text.chat_template import ChatTemplate
from llamalite.text.templates import choose_template

if TYPE_CHECKING:
    from typing import Literal

    Pooling = Literal["none", "mean", "cls", "last"]

__all__ = ["LLM", "GenerationResult", "GenerationStream"]

_DEFAULT_N_CTX = 8192
_ALL_LAYERS = 2**31 - 1

Prompt = str | Sequence[int]
Message = Mapping[str, Any]


class LLM:
    """A model ready to generate, in this process.

    Calls from several threads wait for each other. There is one generation at a time: a stream
    that hasn't ended raises EngineClosed after another one has started.

    Args:
        model: a path to a GGUF file, or a name such as "smollm2:135m" that is fetched if needed.
        n_ctx: context length in tokens; None = the model's own, at most 8192; 0 = the model's own.
        n_batch: most tokens computed in one call.
        n_ubatch: most tokens computed at once.
        n_threads: threads for decoding; None = physical cores.
        n_threads_batch: threads for prefill; None = n_threads.
        n_gpu_layers: layers on the GPU; None = all if there is a GPU, -1 = all, and a positive
            number without a GPU is an error.
        chat_template: name or Jinja text of a template to use instead of the model's own.
        pooling: how `embed` pools; None = as the model says, else mean.
        loras: (path, scale) of adapters to apply.
        say: gets one line for everything worth knowing (what is fetched, which template …);
            None = printed to stderr.

    Raises:
        LlamaliteError: see `llamalite.errors`; the message says what to do.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "smollm2:135m",
        *,
        n_ctx: int | None = None,
        n_batch: int = 2048,
        n_ubatch: int = 512,
        n_threads: int | None = None,
        n_threads_batch: int | None = None,
        n_gpu_layers: int | None = None,
        chat_template: str | None = None,
        pooling: Pooling | None = None,
        loras: Iterable[tuple[str | os.PathLike[str], float]] = (),
        say: Callable[[str], None] | None = None,
    ) -> None:
        started = time.perf_counter()
        _check_least(0, n_ctx=n_ctx)
        _check_least(1, n_batch=n_batch, n_ubatch=n_ubatch)
        _check_least(1, n_threads=n_threads, n_threads_batch=n_threads_batch)
        _check_least(-1, n_gpu_layers=n_gpu_layers)
        check_pooling(pooling)
        if chat_template is not None and (not isinstance(chat_template, str) or not chat_template):
            raise InvalidParameter("chat_template must be a name or a text", param="chat_template")
        self._say = say or say_on_stderr
        self._lock = threading.RLock()
        self._running: GenerationStream | None = None
        self.model_path = resolve_model(model, say=self._say)
        with GGUFReader(self.model_path) as reader:
            check_runnable(reader)
            self._chosen = choose_template(reader.summary.chat_templates, chat_template)
        self._template: ChatTemplate | None = None
        self.library: Library = ready_library(say)
        self._model = Model(
            self.library,
            self.model_path,
            on_progress=lambda _fraction: None,  # so that Ctrl-C stops a load
            n_gpu_layers=self._layers(n_gpu_layers),
        )
        threads = default_n_threads() if n_threads is None else n_threads
        self._params = {
            "n_ctx": self._context_length(n_ctx),
            "n_batch": n_batch,
            "n_ubatch": min(n_ubatch, n_batch),
            "n_threads": threads,
            "n_threads_batch": threads if n_threads_batch is None else n_threads_batch,
        }
        self._context = Context(self._model, **self._params)
        if n_ctx and self.n_ctx != n_ctx:
            self._say(f"context: {self.n_ctx} tokens, because libllama rounds {n_ctx} up")
        self._batch = Batch(self._context.n_batch, self._model.vocab.n_tokens)
        self._pooling = pooling
        self._embedder: Embedder | None = None
        self._adapters = [(LoraAdapter(self._model, path), scale) for path, scale in loras]
        if self._adapters:
            self._context.set_loras(self._adapters)
        self.load_s = time.perf_counter() - started

    def _layers(self, wanted: int | None) -> int:
        gpus = [device.name for device in self.library.devices() if device.is_gpu]
        if wanted and not gpus:
            raise ModelLoadError(
                f"{'all' if wanted < 0 else wanted} layers were to go to a GPU, but this libllama "
                f"({self.library.release}) sees none: leave --gpu-layers out to use the CPU, or "
                "install a build for your GPU with 'llamalite lib install --backend …'"
            )
        if not gpus or wanted == 0:
            return 0
        return _ALL_LAYERS if wanted is None or wanted < 0 else wanted

    def _context_length(self, wanted: int | None) -> int:
        trained = self._model.n_ctx_train
        if wanted is None:
            if trained > _DEFAULT_N_CTX:
                self._say(
                    f"context: {_DEFAULT_N_CTX} of the model's {trained} tokens (--ctx-size 0 "
                    "for all)"
                )
            return min(trained, _DEFAULT_N_CTX)
        if wanted > trained:
            self._say(f"context: {wanted} tokens, more than the {trained} the model was trained on")
        return wanted

    @property
    def n_ctx(self) -> int:
        """Context length in tokens."""
        return self._context.n_ctx

    @property
    def n_threads(self) -> int:
        """Threads used for decoding."""
        return self._context.n_threads

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
            sampling: how tokens are chosen.
            overrides: fields of SamplingConfig to change, such as temperature=0.

        Raises:
            ContextLengthExceeded: the prompt doesn't fit, with both numbers.
            InvalidParameter: a parameter is unknown or out of range.
            ConstraintError: the grammar is faulty or can't be met.
        """
        with self._lock:
            return _drain(self.stream(prompt, sampling, **overrides))

    def stream(
        self, prompt: Prompt, sampling: SamplingConfig | None = None, **overrides: Any
    ) -> GenerationStream:
        """Continue a prompt, giving text as it comes; parameters and errors as in generate."""
        tokens = self._tokenize_prompt(prompt) if isinstance(prompt, str) else prompt
        return self._start(tokens, sampling, overrides)

    def chat(
        self, messages: Sequence[Message], sampling: SamplingConfig | None = None, **overrides: Any
    ) -> GenerationResult:
        """Answer a conversation.

        Args:
            messages: dicts with "role" and "content", oldest first.
            sampling: how tokens are chosen.
            overrides: fields of SamplingConfig to change.

        Raises:
            TemplateError: the model's chat template refuses the messages.
            ContextLengthExceeded: the conversation doesn't fit.
        """
        with self._lock:
            return _drain(self.stream_chat(messages, sampling, **overrides))

    def stream_chat(
        self, messages: Sequence[Message], sampling: SamplingConfig | None = None, **overrides: Any
    ) -> GenerationStream:
        """Answer a conversation, giving text as it comes; otherwise as chat."""
        return self._start(self.tokenize_chat(messages), sampling, overrides)

    def render_chat(self, messages: Sequence[Message], **kwargs: Any) -> str:
        """Return the text the chat template makes of a conversation.

        Args:
            messages: dicts with "role" and "content".
            kwargs: passed to the template (tools, add_generation_prompt, …).
        """
        if self._template is None:
            if self._chosen.notice:
                self._say(self._chosen.notice)
            vocab = self._model.vocab
            self._template = ChatTemplate(
                self._chosen.source, bos_token=vocab.text_of("bos"), eos_token=vocab.text_of("eos")
            )
        return self._template.render(messages, **kwargs)

    def tokenize_chat(self, messages: Sequence[Message], **kwargs: Any) -> list[int]:
        """Return the tokens of a conversation, with exactly one BOS if the model wants one."""
        return self._tokenize_prompt(self.render_chat(messages, **kwargs))

    def _tokenize_prompt(self, text: str) -> list[int]:
        vocab = self._model.vocab
        bos = needs_bos(text, vocab.text_of("bos"), vocab.adds_bos)
        return self.tokenize(text, add_special=bos)

    def _start(
        self, tokens: Sequence[int], sampling: SamplingConfig | None, overrides: dict[str, Any]
    ) -> GenerationStream:
        config = (sampling or SamplingConfig()).replace(**overrides)
        with self._lock:
            if self._running is not None:
                self._running.supersede()
            prompt = self._model.vocab.as_array(tokens)
            generation = Generation(self._context, self._batch, prompt, config, self.load_s)
            self._running = GenerationStream(generation, self._lock)
            return self._running

    def embed(self, texts: str | Sequence[str]) -> npt.NDArray[np.float32]:
        """Return normalised embeddings, float32[n_texts, n_embd_out].

        Args:
            texts: one text or several; each must fit the batch.

        Raises:
            ContextLengthExceeded: a text is longer than n_batch or the context.
        """
        items = [texts] if isinstance(texts, str) else list(texts)
        with self._lock:
            if self._embedder is None:
                self._embedder = Embedder(self._model, self._params, self._pooling, self._adapters)
            rows = [self._embedder.embed(self.tokenize(text)) for text in items]
        return np.stack(rows) if rows else np.empty((0, self._model.n_embd_out), np.float32)

    def close(self) -> None:
        """Free the model; later calls raise EngineClosed."""
        with self._lock:
            if self._running is not None:
                self._running.close()
            self._model.close()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def _check_least(least: int, **values: int | None) -> None:
    for name, value in values.items():
        if value is not None and (type(value) is not int or value < least):
            raise InvalidParameter(
                f"{name} is {value!r}, no whole number from {least} on", param=name
            )


def _drain(stream: GenerationStream) -> GenerationResult:
    for _ in stream:
        pass
    return stream.result
