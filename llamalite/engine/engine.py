"""The engine: many requests in one batch, over one context.

Owns the life of requests from submission to their last delta, and who computes: any thread may
submit, cancel and ask; one at a time steps, holding `_step_lock`. Without a thread of its own
(`start`), whoever waits for a Generation computes. Doesn't know how a step goes, processes,
connections or chat messages. Imports everything below the engine, and its siblings.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llamalite.config.layers import load_config
from llamalite.engine.arrivals import Arrivals
from llamalite.engine.constraining import compile_constraint
from llamalite.engine.delivery import Delivery
from llamalite.engine.embedding import EmbeddingJob
from llamalite.engine.embedding_queue import EmbeddingQueue
from llamalite.engine.facts import EngineFacts
from llamalite.engine.handle import Embedding, Generation, Sink
from llamalite.engine.loading import Loaded, load
from llamalite.engine.picking import Picker
from llamalite.engine.request import EmbeddingRequest, EngineOptions, GenerationRequest
from llamalite.engine.result import Delta
from llamalite.engine.sequence import Sequence
from llamalite.engine.setup import make_stepper
from llamalite.engine.stats import EngineStats, Meter
from llamalite.errors import (
    ContextLengthExceeded,
    EngineClosed,
    EngineError,
    InvalidParameter,
    LlamaliteError,
)
from llamalite.libs.transfer.progress import Say
from llamalite.models.resolve import Resolved, resolve

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_ANSWERS, _EMBEDDINGS = "answers", "embeddings"
_IDLE_S = 0.5

_log = logging.getLogger("llamalite.engine")


class Engine:
    """Generates for many requests at once with one loaded model.

    Args:
        loaded: the model; the engine closes it.
        options: how it was set up, as `load` was told.

    Raises:
        ModelLoadError: its context can't be made.
    """

    def __init__(self, loaded: Loaded, options: EngineOptions | None = None) -> None:
        self.loaded = loaded
        self.options = options or EngineOptions()
        self._meter = Meter()
        self._stepper, self._context = make_stepper(
            loaded, self.options, self._meter, self._deliver
        )
        self._embeddings = EmbeddingQueue(
            loaded, self.options.step_budget_s, self._meter, self._deliver_embedding
        )
        self._arrivals: Arrivals[Sequence | EmbeddingJob] = Arrivals(
            self.options.n_parallel + self.options.n_queue
        )
        self._step_lock = threading.RLock()
        self._delivery = Delivery()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] | Resolved | None = None,
        options: EngineOptions | None = None,
        *,
        say: Say | None = None,
        force: bool = False,
        **settings: Any,
    ) -> Engine:
        """Load a model and make its engine.

        Args:
            model: a path, a name, or None for the configured default model.
            options: how the engine is set up.
            say: takes a line for everything worth knowing; None = stderr.
            force: load it even if it doesn't fit into memory.
            settings: n_ctx (per sequence), n_batch, n_ubatch, n_threads, n_threads_batch,
                n_gpu_layers, cache_type_k, cache_type_v, chat_template, adapters; what is left
                out is as configured.

        Raises:
            LlamaliteError: see `llamalite.errors`; DoesNotFit with what is needed and free.
        """
        if not isinstance(model, Resolved):
            model = resolve(load_config().default_model if model is None else model, say=say)
        options = options or EngineOptions()
        loaded = load(model, settings, say, options, force=force)
        try:
            return cls(loaded, options)
        except BaseException:
            loaded.close()
            raise

    @cached_property
    def facts(self) -> EngineFacts:
        """What was loaded, and how."""
        return self.loaded.facts(self._context, self.options.n_parallel)

    def submit(self, request: GenerationRequest, sink: Sink | None = None) -> Generation:
        """Take a request; any thread. Constraints are compiled in the calling one.

        Args:
            request: what to generate.
            sink: takes the deltas, in the engine's thread, instead of the Generation.

        Raises:
            InvalidParameter: the prompt is empty, a token isn't in the vocabulary, the model can't
                generate, or more answers are wanted than the engine ever takes at once.
            ContextLengthExceeded: the prompt leaves no room for an answer.
            ConstraintError: the constraint can't be used.
            QueueFull: too many requests are waiting.
            EngineClosed: the engine is closing or closed.
        """
        submitted = time.perf_counter()
        generation = Generation(request.n, self.cancel, self._pump)
        taker = sink or generation
        vocab, sequences = self.loaded.model.vocab, []
        with self._arrivals.place_for(_ANSWERS, request.n), vocab.in_use():
            prompt = self._check(request)
            limit = self._n_ctx - len(prompt)
            if request.sampling.max_tokens is not None:
                limit = min(limit, request.sampling.max_tokens)
            factory = compile_constraint(request, vocab, limit)
            for index in range(request.n):
                matcher = factory() if factory is not None else None
                picker = Picker(vocab, request, self._n_ctx, index, matcher)
                picker.prime(prompt)
                sequences.append(
                    Sequence(
                        generation.id, index, request, prompt, limit, picker, matcher, vocab,
                        taker, submitted,
                    )
                )  # fmt: skip
            self._arrivals.put(sequences)
        return generation

    @property
    def _n_ctx(self) -> int:
        return self.loaded.n_ctx

    def _check(self, request: GenerationRequest) -> npt.NDArray[np.int32]:
        model = self.loaded.model
        if not self.facts.can_generate:
            raise InvalidParameter(
                f"{model.path.name} ({model.description}) is no decoder-only model and can't "
                "generate here: use it for embeddings",
                param="model",
            )
        prompt = model.vocab.as_array(request.prompt)
        for token in request.stop_tokens:
            model.vocab.check(token)
        if not len(prompt):
            raise InvalidParameter("the prompt is empty: give at least one token", param="prompt")
        if len(prompt) >= self._n_ctx:
            raise ContextLengthExceeded(len(prompt), self._n_ctx)
        return prompt

    def embed(self, request: EmbeddingRequest, sink: Sink | None = None) -> Embedding:
        """Take texts to embed; any thread.

        Raises:
            InvalidParameter: a text is empty, a token isn't in the vocabulary, or there is no such
                pooling.
            ContextLengthExceeded: a text is longer than one batch.
            QueueFull: too many requests are waiting.
            EngineClosed: the engine is closing or closed.
        """
        handle = Embedding(self._pump)
        with self._arrivals.place_for(_EMBEDDINGS, 1), self.loaded.model.vocab.in_use():
            self._arrivals.put([EmbeddingJob(handle.id, request, sink or handle, self.loaded)])
        return handle

    def cancel(self, request_id: int) -> None:
        """End a request before the next step; nothing happens if it has ended. Any thread.

        Answers end as cancelled, embeddings with an EngineError.
        """
        self._arrivals.cancel(request_id)

    def step(self) -> bool:
        """Compute one step in this thread; False if there was nothing to do.

        An exception from a signal handler (KeyboardInterrupt) ends all running answers as
        cancelled, since nobody knows how far the step had come. Any other ends all requests with an
        EngineError and is raised.
        """
        with self._step_lock:
            if self._arrivals.is_closed and self._context.closed:
                return False
            try:
                self._take_news()
                embedded = self._embeddings.step(is_hurried=bool(self._stepper.running))
                stepped = self._stepper.step()
            except Exception as error:
                _log.exception("a step of the engine failed")
                self._fail_all(error)
                raise
            except BaseException:
                self._stepper.reset()
                raise
            finally:
                self._delivery.flush()
            return stepped or embedded

    def _pump(self) -> bool:
        """Compute a step for somebody who waits, unless somebody else does."""
        if self._thread is not None or not self._step_lock.acquire(blocking=False):
            return False
        try:
            return self.step()
        except Exception:  # it has been told to all it concerns
            return True
        finally:
            self._step_lock.release()

    def _take_news(self) -> None:
        # NOTE: taken first and dropped then, as an exception of a signal handler may come between.
        while (item := self._arrivals.first()) is not None:
            if isinstance(item, EmbeddingJob):
                self._embeddings.add(item)
            elif item.limit or item.wants_prompt_logprobs:
                self._stepper.add(item)
            else:
                self._deliver(item, item.finish("length"))
            self._arrivals.drop()
        cancelled = self._arrivals.cancelled()
        if cancelled:
            self._stepper.end(lambda s: s.request_id in cancelled, "cancelled")
            self._embeddings.cancel(cancelled)
            self._arrivals.forget(cancelled)

    def _deliver(self, sequence: Sequence, item: Delta | LlamaliteError) -> None:
        if sequence.is_told:
            return
        self._delivery.put(sequence.sink, sequence.request_id, item)
        if isinstance(item, Delta) and item.finish_reason is None:
            return
        sequence.is_told = True
        self._arrivals.ended(_ANSWERS)
        if isinstance(item, Delta):
            assert item.finish_reason is not None
            assert item.usage is not None
            assert item.timings is not None
            self._meter.finished(item.finish_reason, item.usage, item.timings)
        else:
            self._meter.failed()

    def _deliver_embedding(self, job: EmbeddingJob, item: Any) -> None:
        if not job.is_told:
            self._delivery.put(job.sink, job.id, item)
            job.is_told = True
            self._arrivals.ended(_EMBEDDINGS)

    def _fail_all(self, error: Exception) -> None:
        """End all there is with an error, since nobody knows how far a step had come."""
        told = EngineError(f"a step of the engine failed: {type(error).__name__}: {error}")
        try:
            self._stepper.reset(told)
        finally:
            self._end_all(told)

    def _end_all(self, error: LlamaliteError) -> None:
        self._take_news()
        self._stepper.fail(lambda _: True, error)
        self._embeddings.fail(error)

    def start(self) -> None:
        """Compute in a thread of the engine's own from now on."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self.run, args=(self._stop,), name="llamalite-engine", daemon=True
            )
            self._thread.start()

    def run(self, until: threading.Event) -> None:
        """Compute in this thread until an event is set (and `wake` called).

        Should a step fail, everything ends with an EngineError, nothing more is taken, and the
        exception is raised.
        """
        try:
            self._run(until)
        except Exception as error:
            self._arrivals.close("the engine has failed, see its log: open a new one")
            with self._step_lock:
                try:
                    self._fail_all(error)  # and what came before the door was closed
                finally:
                    self._delivery.flush()
            raise

    def _run(self, until: threading.Event) -> None:
        while not until.is_set():
            if self.step():
                continue
            self._arrivals.wait_for_news(_IDLE_S, until)

    def wake(self) -> None:
        """Let `run` look whether it is to end."""
        self._arrivals.wake()

    def stats(self) -> EngineStats:
        """Return what it has done and is doing; any thread."""
        n_running = len(self._stepper.running)
        return self._meter.snapshot(
            n_running=n_running,
            n_waiting=max(self._arrivals.count(_ANSWERS) - n_running, 0),
            n_slots=self.facts.n_slots,
            n_cells=self.facts.n_cells,
            n_cells_used=self._stepper.n_cells_used,
            n_threads=self._stepper.n_threads,
        )

    def drain(self, timeout_s: float) -> bool:
        """Take no more requests and wait for those there are; False if some are left."""
        deadline = time.monotonic() + timeout_s
        self._arrivals.close("the engine is ending and takes no more requests")
        while self._arrivals.n_live:
            if time.monotonic() > deadline:
                return False
            if not self._pump():
                self._arrivals.wait(0.02)
        return True

    def close(self) -> None:
        """End everything and free the model; what was running raises EngineClosed."""
        self._arrivals.close("the engine is closed: open a new one")
        self._stop.set()
        self.wake()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._step_lock:
            if self._context.closed:
                return
            self._end_all(EngineClosed("the engine was closed before this request had ended"))
            self._delivery.flush()
            self.loaded.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
