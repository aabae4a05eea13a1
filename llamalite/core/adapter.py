"""LoRA adapters and control vectors.

Imports numpy, `ffi`, `llamalite.errors` and its own siblings.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llamalite.core.owned import Owned
from llamalite.errors import AdapterError
from llamalite.ffi import native_log

if TYPE_CHECKING:
    from llamalite.core.context import Context
    from llamalite.core.model import Model

_FREED_WITH_MODEL = 7743


class LoraAdapter(Owned):
    """A LoRA adapter loaded for one model; `Context.set_loras` applies it.

    Raises:
        AdapterError: no such file, or it doesn't belong to this model.

    Source: llama_adapter_lora_init.
    """

    def __init__(self, model: Model, path: str | os.PathLike[str]) -> None:
        self.model = model
        self.path = Path(path)
        if not self.path.is_file():
            raise AdapterError(f"there is no adapter file {self.path}")
        native_log.forget()
        handle = model.library.llama_adapter_lora_init(model.handle, os.fsencode(self.path))
        if not handle:
            reason = native_log.recent_errors() or "libllama gave no reason"
            raise AdapterError(f"{self.path} can't be used with {model.path}: {reason}")
        # ABI: later builds free adapters with their model, and freeing one twice would crash.
        old = model.library.builds[1] < _FREED_WITH_MODEL
        free = model.library.llama_adapter_lora_free if old else _leave_to_model
        super().__init__(handle, free, model)


def _leave_to_model(_handle: int) -> None:
    pass


def set_loras(context: Context, adapters: Sequence[tuple[LoraAdapter, float]]) -> None:
    """Use exactly these adapters, behind one name for both of llama.h's forms.

    Raises:
        AdapterError: libllama refused them, or one belongs to another model.
    """
    for adapter, scale in adapters:
        if not math.isfinite(scale):
            raise AdapterError(f"the scale of {adapter.path} is {scale}, which is no number")
        if adapter.model is not context.model:
            raise AdapterError(f"{adapter.path} was loaded for another model")
    library, handle = context.library, context.handle
    if library.has("llama_set_adapters_lora"):
        count = len(adapters)
        handles = (ctypes.c_void_p * count)(*[adapter.handle for adapter, _ in adapters])
        scales = (ctypes.c_float * count)(*[scale for _, scale in adapters])
        failed = library.llama_set_adapters_lora(
            handle, ctypes.addressof(handles), count, ctypes.addressof(scales)
        )
    else:
        library.llama_clear_adapter_lora(handle)
        codes = [library.llama_set_adapter_lora(handle, a.handle, scale) for a, scale in adapters]
        failed = any(codes)
    if failed:
        raise AdapterError("libllama refused the adapters: they don't fit this context")


def set_control_vector(
    context: Context,
    vectors: npt.NDArray[np.float32] | None,
    first_layer: int,
    last_layer: int,
) -> None:
    """Apply float32[n_layer - 1, n_embd] of layer directions, or clear them with None.

    Raises:
        AdapterError: the shape is not the model's, or libllama refused it.
    """
    library, model = context.library, context.model
    new = library.has("llama_set_adapter_cvec")
    apply = library.llama_set_adapter_cvec if new else library.llama_apply_adapter_cvec
    if vectors is None:
        apply(context.handle, None, 0, 0, 0, 0)
        return
    rows = np.ascontiguousarray(vectors, np.float32)
    if rows.shape != (model.n_layer - 1, model.n_embd):
        raise AdapterError(
            f"a control vector of shape {rows.shape} doesn't fit: the model needs "
            f"({model.n_layer - 1}, {model.n_embd})"
        )
    last = last_layer if last_layer >= 0 else model.n_layer
    if apply(context.handle, rows.ctypes.data, rows.size, model.n_embd, first_layer, last):
        raise AdapterError("libllama refused the control vector")
