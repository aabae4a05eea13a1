"""llama-cpp-python: one sequence in this process, so that requests wait for one another."""

from __future__ import annotations

import threading
from importlib import metadata
from typing import Any

import llama_cpp
from peers.replay import OnTokens, Peer


class LlamaCppPythonPeer(Peer):
    """Options are arguments of its Llama class. Its cheapest loop is used: token ids, no text."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._lock = threading.Lock()
        self._llama = llama_cpp.Llama(
            job["model"],
            n_ctx=job["n_ctx"],
            n_threads=job["n_threads"],
            n_threads_batch=job["n_threads"],
            n_gpu_layers=0,
            verbose=False,
            **job["options"],
        )
        self._n_evaluated = 0
        evaluate = self._llama.eval

        def counting(tokens: Any) -> None:
            self._n_evaluated += len(tokens)
            evaluate(tokens)

        self._llama.eval = counting

    def generate(self, prompt: list[int], n_tokens: int, on_tokens: OnTokens) -> dict[str, Any]:
        with self._lock:
            self._n_evaluated = 0
            for count, _ in enumerate(self._llama.generate(prompt, temp=0.0), 1):
                if count == 1:
                    n_evaluated = self._n_evaluated
                if on_tokens(1) or count == n_tokens:
                    break
        return {"n_evaluated": n_evaluated}

    def facts(self) -> dict[str, Any]:
        return {"version": metadata.version("llama-cpp-python")}
