"""The fastest loop ctypes allows over one libllama: no text, no checks, no objects per step.

What llamalite's own loop is measured against. Both use the same library in the same process.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

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


class BareBatch:
    """Greedy generation for several sequences in lockstep, one batch a step.

    Tokens are picked by numpy's argmax, which is faster than libllama's own greedy sampler.

    Args:
        library: the opened libllama.
        path: the model.
        n_seq: number of sequences.
        n_ctx: context length of each sequence in tokens.
        n_threads: threads for prefill and decode.
        unified: one pool of cache cells for all sequences instead of a stream for each.
        flash_attn: -1 as libllama thinks best, 0 off, 1 on.
    """

    def __init__(
        self,
        library: Library,
        path: Path,
        *,
        n_seq: int,
        n_ctx: int,
        n_threads: int,
        unified: bool,
        flash_attn: int = -1,
    ) -> None:
        self.lib, self.n_seq = library, n_seq
        params = library.model_defaults()
        params.n_gpu_layers = 0
        self.model = library.llama_model_load_from_file(str(path).encode(), params)
        self.n_vocab = library.llama_vocab_n_tokens(library.llama_model_get_vocab(self.model))
        context = library.context_defaults()
        context.n_ctx, context.n_batch, context.n_ubatch = n_ctx * n_seq, 2048, 512
        context.n_seq_max, context.kv_unified = n_seq, unified
        context.flash_attn_type = flash_attn
        context.n_threads = context.n_threads_batch = n_threads
        self.context = library.llama_init_from_model(self.model, context)

    def close(self) -> None:
        self.lib.llama_free(self.context)
        self.lib.llama_model_free(self.model)

    def run(
        self, prompts: Sequence[Sequence[int]], n_tokens: int
    ) -> tuple[list[list[float]], list[list[int]]]:
        """Return for each sequence when its tokens came, by time.perf_counter, and the tokens."""
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), False)
        tokens, times = [], []
        for seq_id, prompt in enumerate(prompts):
            batch = _Rows(len(prompt))
            batch.token[:], batch.pos[:] = prompt, np.arange(len(prompt))
            batch.seq_id[:] = seq_id
            batch.output[-1] = 1
            tokens.append(int(self._decode(batch, 1)[0]))
            times.append([time.perf_counter()])
        batch = _Rows(len(prompts))
        batch.token[:], batch.seq_id[:] = tokens, np.arange(len(prompts))
        batch.pos[:] = [len(prompt) for prompt in prompts]
        batch.output[:] = 1
        steps, rows = [], [tokens]
        for _ in range(n_tokens - 1):
            batch.token[:] = picked = self._decode(batch, len(prompts))
            batch.pos += 1
            rows.append(picked.tolist())
            steps.append(time.perf_counter())
        return [first + steps for first in times], [list(row) for row in zip(*rows, strict=True)]

    def _decode(self, batch: _Rows, n_outputs: int) -> np.ndarray:
        code = self.lib.llama_decode(self.context, batch.struct)
        if code:
            raise RuntimeError(f"llama_decode returned {code}")
        address = self.lib.llama_get_logits(self.context)
        kind = ctypes.c_float * (n_outputs * self.n_vocab)
        logits = np.ctypeslib.as_array(kind.from_address(address))
        return logits.reshape(n_outputs, self.n_vocab).argmax(axis=1)


class _Rows:
    """A llama_batch over numpy arrays, one sequence a row."""

    def __init__(self, n: int) -> None:
        self.token, self.pos, self.n_seq_id = (np.ones(n, np.int32) for _ in range(3))
        self.seq_id, self.output = np.zeros(n, np.int32), np.zeros(n, np.int8)
        self._rows = self.seq_id.ctypes.data + 4 * np.arange(n, dtype=np.uint64)
        self.struct = Batch(
            n_tokens=n,
            token=self.token.ctypes.data,
            pos=self.pos.ctypes.data,
            n_seq_id=self.n_seq_id.ctypes.data,
            seq_id=self._rows.ctypes.data,
            logits=self.output.ctypes.data,
        )
