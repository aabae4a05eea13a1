"""A context: the memory and compute buffers in which a model decodes.

Imports numpy, `ffi`, `llamalite.errors` and its own siblings.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from llamalite.core.adapter import LoraAdapter, set_control_vector, set_loras
from llamalite.core.batch import Batch
from llamalite.core.memory import Memory
from llamalite.core.model import Model, apply_params
from llamalite.core.owned import Owned
from llamalite.errors import (
    Aborted,
    DecodeError,
    DoesNotFit,
    FatalDecode,
    InvalidBatch,
    InvalidParameter,
    ModelLoadError,
    NoKVSlot,
)
from llamalite.ffi import native_log
from llamalite.ffi.library import Library
from llamalite.ffi.structs import AbortCallback, PoolingType
from llamalite.ffi.watched import call_watched

_UNSIGNED_MAX = 2**32 - 1
_CACHE_TYPES = frozenset({0, 1, 2, 3, 6, 7, 8, 20, 30})
"""ggml_type numbers: f32, f16, q4_0, q4_1, q5_0, q5_1, q8_0, iq4_nl, bf16."""
_ENUMS = {
    "flash_attn_type": (-1, 1),
    "pooling_type": (-1, 4),
    "attention_type": (-1, 1),
    "rope_scaling_type": (-1, 3),
    "ctx_type": (0, 1),
}
_ERRORS: dict[int, tuple[type[DecodeError], str]] = {
    1: (NoKVSlot, "the context's memory has no room for this batch: use a larger context"),
    2: (Aborted, "decoding was stopped by the abort callback"),
    -1: (InvalidBatch, "libllama refused the batch"),
}


class Context(Owned):
    """A context for one model; every call on it belongs to one thread.

    Args:
        model: the model; closing it closes this first.
        params: fields of llama_context_params by their C names. `n_ctx=0` takes the model's own
            context length. `flash_attn_type` is mapped to the bool it was before b6325.

    Attributes:
        n_ctx: context length in tokens, all sequences together.
        n_batch: most tokens in one batch.
        n_seq_max: number of sequences.
        memory: its KV cache or recurrent state.
        swa_full: whether layers with a sliding window keep as many cells as the others.
        cache_key: what besides the model decides the form of the cache.
        n_computed: batches computed so far; copies between streams take place with the next one.

    Raises:
        InvalidParameter: a size is out of range.
        DoesNotFit: the cache alone is larger than all memory of this machine.
        ModelLoadError: libllama could not make it; the message holds its last words.
        SymbolMissing: a parameter is unknown to this build.

    Source: llama_init_from_model.
    """

    def __init__(self, model: Model, **params: Any) -> None:
        self.library = library = model.library
        self.model = model
        self._check_params(params)
        struct = library.context_defaults()
        layout = library.context_layout
        if "flash_attn_type" in params and layout.has("flash_attn"):
            params["flash_attn"] = params.pop("flash_attn_type") == 1
        apply_params(struct, layout, params, library.release)
        self.kv_unified = bool(getattr(struct, "kv_unified", True))
        self.swa_full = bool(struct.swa_full)
        self.cache_key = (struct.type_k, struct.type_v, self.kv_unified)
        self._check_room(struct.n_ctx or model.n_ctx_train)
        native_log.forget()
        with _graphs_follow_adapters(library), model.in_use() as parent:
            handle = library.llama_init_from_model(parent, struct)
        if not handle:
            reason = native_log.recent_errors() or "libllama gave no reason"
            raise ModelLoadError(
                f"no context of {struct.n_ctx or model.n_ctx_train} tokens could be made for "
                f"{model.path}: {reason}; a smaller --ctx-size needs less memory"
            )
        super().__init__(handle, library.llama_free, model)
        self.n_ctx: int = library.llama_n_ctx(handle)
        self.n_batch: int = library.llama_n_batch(handle)
        self.n_seq_max: int = library.llama_n_seq_max(handle)
        self.pooling = PoolingType(library.llama_pooling_type(handle))
        self.memory = Memory(self)
        self._n_ubatch: int = library.llama_n_ubatch(handle)
        self.n_computed = 0
        self._causal = True
        self._views: dict[int, npt.NDArray[np.float32]] = {}
        self._outputs: npt.NDArray[np.int8] = np.zeros(0, np.int8)

    def _check_params(self, params: dict[str, Any]) -> None:
        limits = {
            "n_ctx": (0, _UNSIGNED_MAX),
            "n_batch": (1, _UNSIGNED_MAX),
            "n_ubatch": (1, _UNSIGNED_MAX),
            "n_seq_max": (1, self.library.llama_max_parallel_sequences()),
            "n_threads": (1, 512),
            "n_threads_batch": (1, 512),
            **_ENUMS,
        }
        for name, (low, high) in limits.items():
            value = params.get(name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and not (whole and low <= value <= high):
                raise InvalidParameter(
                    f"{name} is {value!r}, no whole number in [{low}, {high}]", param=name
                )
        for name in ("type_k", "type_v"):
            if params.get(name, 1) not in _CACHE_TYPES:
                raise InvalidParameter(
                    f"{name} is {params[name]!r}, no type a cache can have: "
                    f"{', '.join(map(str, sorted(_CACHE_TYPES)))}",
                    param=name,
                )
        if 0 < params.get("n_ctx", 0) < params.get("n_seq_max", 1):
            raise InvalidParameter("n_ctx must be at least n_seq_max", param="n_ctx")
        if self.model.has_vocab_only:
            raise InvalidParameter(
                f"{self.model.path} was loaded for its vocabulary alone and can't compute",
                param="vocab_only",
            )

    def _check_room(self, n_ctx: int) -> None:
        # NOTE: only what can't be: some builds fill all memory before they find out.
        model, lib = self.model, self.library
        if model.is_recurrent or model.is_hybrid:
            return
        import psutil

        heads = lib.llama_model_n_head(model.handle) or 1
        width = model.n_embd * lib.llama_model_n_head_kv(model.handle) // heads
        needed = n_ctx * model.n_layer * width  # one byte an element, K alone: a lower bound
        there = psutil.virtual_memory().total + sum(
            device.total_bytes for device in lib.devices() if device.is_gpu
        )
        if needed > there:
            raise DoesNotFit(
                f"a context of {n_ctx} tokens needs at least {needed >> 30} GiB for its cache and "
                f"this machine has {there >> 30} GiB in all: use a smaller --ctx-size"
            )

    def check_seq_id(self, *seq_ids: int) -> None:
        """Raise InvalidParameter unless each is one of this context's sequences."""
        for seq_id in seq_ids:
            if not 0 <= seq_id < self.n_seq_max:
                raise InvalidParameter(
                    f"sequence {seq_id} is not below {self.n_seq_max}", param="seq_id"
                )

    def decode(self, batch: Batch, *, interruptible: bool = False, wait: bool = False) -> None:
        """Compute a batch with the decoder, adding its tokens to the memory.

        Args:
            batch: what to compute.
            interruptible: let Ctrl-C stop the computation itself (CPU only). It costs a Python
                call per graph node, so it suits long prompts, not single tokens.
            wait: return when it is computed; a device goes on without us otherwise, until its
                logits are asked for.

        Raises:
            NoKVSlot: the memory is full; it is as before the call.
            Aborted: stopped; what was computed before stays in memory.
            InvalidBatch: empty, larger than n_batch, or refused.
            FatalDecode: the computation failed.
        """
        self._run(self.library.llama_decode, batch, interruptible, wait)

    def encode(self, batch: Batch) -> None:
        """Compute a batch with the encoder, without memory; raises as decode does.

        Raises:
            InvalidParameter: the model has no encoder.
        """
        if self.memory.exists and not self.model.has_encoder:
            raise InvalidParameter(f"{self.model.path} has no encoder", param="model")
        self._run(self.library.llama_encode, batch, False, False)

    def _run(self, function: Any, batch: Batch, interruptible: bool, wait: bool) -> None:
        count = batch.n_tokens
        if not 0 < count <= self.n_batch:
            raise InvalidBatch(f"a batch of {count} tokens is not within 1 to {self.n_batch}")
        if not self._causal and count > self._n_ubatch:
            raise InvalidBatch(f"without causal attention {count} tokens need a larger n_ubatch")
        if batch.n_seq_max > self.n_seq_max or batch.n_vocab > self.model.vocab.n_tokens:
            raise InvalidBatch("the batch was made for another context")
        native_log.forget()
        with self.in_use() as handle:
            if interruptible:
                code = self._run_watched(function, handle, batch)
            else:
                code = function(handle, batch.struct)
            if wait:
                self.library.llama_synchronize(handle)
        self._outputs = batch.output[:count]
        if code:
            kind, text = _ERRORS.get(code, (FatalDecode, "decoding failed"))
            reason = native_log.recent_errors()
            raise kind(f"{text} (code {code}{'; ' + reason if reason else ''})", code=code)
        self.n_computed += 1

    def _run_watched(self, function: Any, handle: int, batch: Batch) -> int:
        stop = threading.Event()
        callback = AbortCallback(lambda _user: stop.is_set())
        address = ctypes.cast(callback, ctypes.c_void_p)
        self.library.llama_set_abort_callback(handle, address, None)
        try:
            return int(call_watched(lambda: function(handle, batch.struct), stop))
        finally:
            self.library.llama_set_abort_callback(handle, None, None)

    def logits(self, row: int = -1) -> npt.NDArray[np.float32]:
        """Return float32[n_vocab] for a row of the last batch that asked for output.

        A view, valid until the next decode.

        Args:
            row: row in the batch; negative counts outputs from the end, -1 the last one.

        Raises:
            InvalidParameter: that row has no output.
        """
        self._check_row(row)
        address = self.library.llama_get_logits_ith(self.handle, row)
        return self._view(address, self.model.vocab.n_tokens, f"row {row} has no logits")

    def embedding(self, row: int = -1) -> npt.NDArray[np.float32]:
        """Return float32[n_embd_out] of one token; a view as with logits (pooling "none")."""
        self._check_row(row)
        address = self.library.llama_get_embeddings_ith(self.handle, row)
        return self._view(address, self.model.n_embd_out, f"row {row} has no embedding")

    def pooled_embedding(self, seq_id: int = 0) -> npt.NDArray[np.float32]:
        """Return float32[n_embd_out] of a sequence, or float32[n_cls_out] with pooling "rank"."""
        address = self.library.llama_get_embeddings_seq(self.handle, seq_id)
        rank = self.pooling == PoolingType.RANK
        size = self.model.n_cls_out if rank else self.model.n_embd_out
        return self._view(address, size, f"sequence {seq_id} has no pooled embedding")

    def _check_row(self, row: int) -> None:
        outputs = self._outputs
        if row == -1 and len(outputs) and outputs[-1]:
            return  # PERF: the usual case
        known = row < len(outputs) and outputs[row] if row >= 0 else -row <= outputs.sum()
        if not known:
            raise InvalidParameter(f"row {row} of the last batch has no output", param="row")

    def _view(self, address: int | None, size: int, complaint: str) -> npt.NDArray[np.float32]:
        if not address:
            raise InvalidParameter(complaint, param="row")
        view = self._views.get(address)
        if view is None or len(view) != size:  # PERF: making a view costs more than sampling
            buffer = (ctypes.c_float * size).from_address(address)
            view = self._views[address] = np.ctypeslib.as_array(buffer)
        return view

    def set_threads(self, n_threads: int, n_threads_batch: int | None = None) -> None:
        """Change the number of threads for decode and prefill; takes effect at the next call."""
        batch = n_threads_batch if n_threads_batch is not None else n_threads
        self._check_params({"n_threads": n_threads, "n_threads_batch": batch})
        self.library.llama_set_n_threads(self.handle, n_threads, batch)

    @property
    def n_threads(self) -> int:
        """Threads used for single-token steps."""
        return int(self.library.llama_n_threads(self.handle))

    def set_embeddings(self, enabled: bool) -> None:
        """Switch whether batches give embeddings besides logits."""
        self.library.llama_set_embeddings(self.handle, enabled)

    def set_causal(self, enabled: bool) -> None:
        """Switch causal attention; without it a batch must fit one ubatch."""
        self._causal = enabled
        self.library.llama_set_causal_attn(self.handle, enabled)

    def set_loras(self, adapters: Sequence[tuple[LoraAdapter, float]]) -> None:
        """Use exactly these adapters, each with its scale; none removes all."""
        set_loras(self, adapters)

    def set_control_vector(
        self, data: npt.NDArray[np.float32] | None, first_layer: int = 1, last_layer: int = -1
    ) -> None:
        """Add a control vector, float32[n_layer - 1, n_embd] from layer 1 on; None clears it."""
        set_control_vector(self, data, first_layer, last_layer)

    def performance(self) -> dict[str, float]:
        """Return libllama's own counters (milliseconds and counts) since the last reset."""
        data = self.library.llama_perf_context(self.handle)
        return {name: getattr(data, name) for name, _ in data._fields_ if name != "_slack"}


_GRAPHS_REUSED, _ADAPTERS_NOTICED = 5922, 9745


@contextlib.contextmanager
def _graphs_follow_adapters(library: Library) -> Iterator[None]:
    """Keep builds from reusing compute graphs that leave out adapters set since.

    ABI: b5922 to some build after b8179 reuse a graph of equal shape although a LoRA or control
    vector was set or removed in between; b9842 doesn't. Measured, reuse gains them nothing here.
    """
    first, last = library.builds
    name = "LLAMA_GRAPH_REUSE_DISABLE"
    if last < _GRAPHS_REUSED or first >= _ADAPTERS_NOTICED or name in os.environ:
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]
