"""The fastest loop ctypes allows over one libllama: no text, no checks, no objects per step.

What llamalite's own loop is measured against. Both use the same library in the same process.
"""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

from llamalite.ffi.library import Library
from llamalite.ffi.structs import Batch, SamplerChainParams


class BareLoop:
    """Greedy generation with nothing but native calls.

    Args:
        library: the opened libllama.
        path: the model.
        n_ctx: context length in tokens.
        n_threads: threads for prefill and decode.
    """

    def __init__(self, library: Library, path: Path, n_ctx: int, n_threads: int) -> None:
        self.lib = library
        params = library.model_defaults()
        params.n_gpu_layers = 0
        self.model = library.llama_model_load_from_file(str(path).encode(), params)
        self.vocab = library.llama_model_get_vocab(self.model)
        context = library.context_defaults()
        context.n_ctx, context.n_batch, context.n_ubatch = n_ctx, 2048, 512
        context.n_threads = context.n_threads_batch = n_threads
        self.context = library.llama_init_from_model(self.model, context)
        self.sampler = library.llama_sampler_chain_init(SamplerChainParams(True))
        library.llama_sampler_chain_add(self.sampler, library.llama_sampler_init_greedy())

    def close(self) -> None:
        self.lib.llama_sampler_free(self.sampler)
        self.lib.llama_free(self.context)
        self.lib.llama_model_free(self.model)

    def run(self, prompt: list[int], n_tokens: int) -> tuple[float, float, list[int]]:
        """Return seconds of prefill, seconds of decode after the first token, and the tokens."""
        decode, sample = self.lib.llama_decode, self.lib.llama_sampler_sample
        context, sampler = self.context, self.sampler
        self.lib.llama_memory_clear(self.lib.llama_get_memory(context), False)
        started = time.perf_counter()
        for start in range(0, len(prompt), 512):
            part = prompt[start : start + 512]
            array = (ctypes.c_int32 * len(part))(*part)
            decode(context, Batch(len(part), ctypes.addressof(array)))
        token = sample(sampler, context, -1)
        first = time.perf_counter()
        tokens = [token]
        one = (ctypes.c_int32 * 1)(token)
        batch = Batch(1, ctypes.addressof(one))
        for _ in range(n_tokens - 1):
            one[0] = token
            decode(context, batch)
            token = sample(sampler, context, -1)
            tokens.append(token)
        return first - started, time.perf_counter() - first, tokens
