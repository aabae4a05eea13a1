"""llamalite's engine in this process, with a thread of its own."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

from peers.replay import OnTokens, Peer

from llamalite.config import SamplingConfig
from llamalite.engine.engine import Engine
from llamalite.engine.request import EngineOptions, GenerationRequest
from llamalite.engine.result import Delta


class LlamalitePeer(Peer):
    """Options are those of EngineOptions."""

    def __init__(self, job: dict[str, Any]) -> None:
        options = EngineOptions(n_parallel=job["n_parallel"], **job["options"])
        self._engine = Engine.load(
            job["model"], options, n_ctx=job["n_ctx"], n_threads=job["n_threads"]
        )
        self._engine.start()

    def generate(self, prompt: list[int], n_tokens: int, on_tokens: OnTokens) -> dict[str, Any]:
        sampling = SamplingConfig(temperature=0, max_tokens=n_tokens, ignore_eos=True)
        sink = _Clock(self._engine, on_tokens)
        self._engine.submit(GenerationRequest(prompt, sampling), sink)
        last = sink.wait()
        if last.usage is None:
            return {"n_evaluated": None}
        return {"n_evaluated": last.usage.prompt_tokens - last.usage.cached_tokens}

    def facts(self) -> dict[str, Any]:
        return {"version": self._engine.facts.library, **dataclasses.asdict(self._engine.facts)}

    def close(self) -> None:
        self._engine.close()


class _Clock:
    """A sink that counts."""

    def __init__(self, engine: Engine, on_tokens: OnTokens) -> None:
        self._engine, self._on_tokens = engine, on_tokens
        self._ended = threading.Event()
        self._last: Any = None

    def put(self, request_id: int, item: Any) -> None:
        self._last = item
        if isinstance(item, Delta):
            enough = self._on_tokens(len(item.tokens))
            if item.finish_reason is None:
                if enough:
                    self._engine.cancel(request_id)
                return
        self._ended.set()

    def flush(self) -> None:
        pass

    def wait(self) -> Delta:
        self._ended.wait()
        if isinstance(self._last, BaseException):
            raise self._last
        assert isinstance(self._last, Delta)
        return self._last
