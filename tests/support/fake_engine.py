"""An engine without libllama, for real processes: counts upwards from the prompt's first token.

Prompts that begin with one of the numbers below do something else.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llamalite.engine.facts import EngineFacts
from llamalite.engine.handle import Generation, Sink
from llamalite.engine.request import EmbeddingRequest, GenerationRequest
from llamalite.engine.result import Delta, TokenLogprobs, Usage
from llamalite.engine.stats import EngineStats
from llamalite.errors import (
    ContextLengthExceeded,
    DoesNotFit,
    EngineClosed,
    EngineError,
    QueueFull,
)

SILENT = 9001
"""Brings nothing until it is cancelled, nor embeddings."""
DEADLY = 9002
"""Kills the engine's process in the next step."""
DEADLY_LATER = 9003
"""Brings a token, then kills it."""
FLOOD = 9004
"""Brings very much in every step."""
BROKEN = 9005
"""Raises what is no error of llamalite in `submit`."""
SPOILED = 9006
"""Brings an exception after a token."""

N_CTX = 100
FACTORY = f"{__name__}:load"

FACTS = EngineFacts(
    model="fake.gguf",
    description="a fake",
    library="b0",
    devices=("CPU",),
    n_layer=1,
    n_gpu_layers=0,
    n_ctx=N_CTX,
    n_ctx_train=N_CTX,
    n_parallel=4,
    n_slots=4,
    n_cells=400,
    kv_unified=False,
    flash_attn=None,
    n_vocab=10_000,
    n_embd_out=3,
    n_batch=512,
    n_threads=1,
    n_threads_batch=1,
    can_generate=True,
    load_s=0.25,
)


def load(arguments: dict[str, Any], say: Callable[[str], None]) -> FakeEngine:
    """Make one.

    Arguments: step_s; `fail` raises DoesNotFit; `fail_os`: PermissionError of that file;
    `deadly_file`: dies at load if that file is there; `log`: a line for stderr; `load_s`,
    `close_s`: how long it takes to load and to close.
    """
    say(f"loading in {os.getpid()}")
    time.sleep(arguments.get("load_s", 0))
    if "log" in arguments:
        print(arguments["log"], file=sys.stderr, flush=True)
        logging.getLogger("llamalite.native").error("a logged\nword")
    if arguments.get("fail"):
        raise DoesNotFit("it needs 9 GB and 1 GB is free: take a smaller one")
    if "fail_os" in arguments:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), arguments["fail_os"])
    if "deadly_file" in arguments and Path(arguments["deadly_file"]).exists():
        print("GGML_ASSERT(loading) failed", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    return FakeEngine(arguments.get("step_s", 0.001), arguments.get("close_s", 0.0))


@dataclass
class _Running:
    request: GenerationRequest
    sink: Sink
    n_done: int = 0
    is_cancelled: bool = False


class FakeEngine:
    def __init__(self, step_s: float = 0.001, close_s: float = 0.0) -> None:
        self._step_s, self._close_s = step_s, close_s
        self._running: dict[int, _Running] = {}
        self._embedding: list[tuple[int, EmbeddingRequest, Sink]] = []
        self._cancelled_embeddings: set[int] = set()
        self._ids = itertools.count(1000)
        self._lock = threading.Lock()
        self._is_draining = False
        self.cancelled: list[int] = []
        self.n_steps = 0
        self.facts = FACTS

    def submit(self, request: GenerationRequest, sink: Sink | None = None) -> Generation:
        handle = Generation(request.n)
        if self._is_draining:
            raise EngineClosed("it takes no more")
        if len(request.prompt) >= N_CTX:
            raise ContextLengthExceeded(len(request.prompt), N_CTX)
        if request.prompt[0] == BROKEN:
            raise ZeroDivisionError("not a word\nof ours")
        if len(self._running) >= 1000:
            raise QueueFull("too many")
        if request.sampling.grammar:
            time.sleep(0.3)  # compiling
        with self._lock:
            self._running[handle.id] = _Running(request, sink or handle)
        return handle

    def embed(self, request: EmbeddingRequest, sink: Sink | None = None) -> Generation:
        handle = Generation()
        with self._lock:
            self._embedding.append((handle.id, request, sink or handle))
        return handle

    def cancel(self, request_id: int) -> None:
        with self._lock:
            self.cancelled.append(request_id)
            if request_id in self._running:
                self._running[request_id].is_cancelled = True
            self._cancelled_embeddings.add(request_id)

    def stats(self) -> EngineStats:
        return EngineStats(n_running=len(self._running), steps=self.n_steps, finished={"stop": 3})

    def run(self, until: threading.Event) -> None:
        while not until.wait(self._step_s):
            self.step()

    def wake(self) -> None:
        pass

    def step(self) -> None:
        with self._lock:
            running, self._embedding, embedding = dict(self._running), [], self._embedding
        self.n_steps += 1
        sinks = []
        for number, request, sink in embedding:
            if number in self._cancelled_embeddings:
                sink.put(number, EngineError("the request was cancelled"))
                sinks.append(sink)
                continue
            if request.prompts and request.prompts[0][0] == SILENT:
                with self._lock:
                    self._embedding.append((number, request, sink))
                continue
            rows = [np.full(3, float(prompt[0]), np.float32) for prompt in request.prompts]
            sink.put(number, np.stack(rows) if rows else np.empty((0, 3), np.float32))
            sinks.append(sink)
        for number, one in running.items():
            sinks.append(one.sink)
            for item in self._items(one):
                one.sink.put(number, item)
                if isinstance(item, BaseException) or item.finish_reason:
                    self._running.pop(number, None)
        for sink in sinks:
            sink.flush()

    def _items(self, one: _Running) -> list[Any]:
        request, first = one.request, int(one.request.prompt[0])
        if one.is_cancelled:
            return [Delta(i, finish_reason="cancelled") for i in range(request.n)]
        if first == SILENT:
            return []
        if first == DEADLY or (first == DEADLY_LATER and one.n_done):
            print(f"GGML_ASSERT(prompt[0] != {first}) failed", file=sys.stderr, flush=True)
            os.abort()
        if first == SPOILED and one.n_done:
            return [EngineError("spoiled")]
        if first == FLOOD:
            return [Delta(text="x" * 100_000, tokens=(1,))]
        one.n_done += 1
        last = one.n_done == (request.sampling.max_tokens or 5)
        token = first + one.n_done
        shown = (TokenLogprobs(token, -0.5, ((token, -0.5), (1, -2.0))),)
        return [
            Delta(
                i,
                f"{token} ",
                (token,),
                logprobs=shown if request.logprobs is not None else (),
                finish_reason="length" if last else None,
                usage=Usage(len(request.prompt), one.n_done) if last else None,
            )
            for i in range(request.n)
        ]

    def drain(self, timeout_s: float) -> bool:
        self._is_draining = True
        deadline = time.monotonic() + timeout_s
        while self._running and time.monotonic() < deadline:
            time.sleep(0.005)
        return not self._running

    def close(self) -> None:
        time.sleep(self._close_s)
        with self._lock:
            running, self._running = self._running, {}
        for number, one in running.items():
            one.sink.put(number, EngineClosed("the engine was closed"))
            one.sink.flush()
