"""How a context's memory is divided among sequences, and how attention is computed.

Imports `gguf`, `ffi`, `models` and its sibling `request`.

Measured (benchmarks/README.md): with a share for each sequence (streams) a sequence attends to its
own cells alone; in one pool it is computed against all cells that anybody uses, masked. So streams
decode faster as soon as contexts grow, and give each text exactly as alone; a pool keeps a shared
prefix once, takes less memory, and may be smaller than all contexts together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llamalite.engine.request import EngineOptions
from llamalite.errors import InvalidParameter
from llamalite.ffi.library import Library
from llamalite.gguf import GGUFReader
from llamalite.models.fit.plan import context_length

_MAX_SCORES_BYTES = 256 << 20
_CELL_PAD = 256  # libllama rounds contexts up to this


@dataclass(frozen=True)
class Layout:
    """A context's memory.

    Attributes:
        n_ctx: tokens of context that each sequence may have.
        kv_unified: one pool of cells for all sequences.
        flash_attn: False = off; None = as libllama decides.
        params: all of it, as Context takes it.
    """

    n_ctx: int
    kv_unified: bool
    flash_attn: bool | None
    params: dict[str, Any]


def choose_layout(
    reader: GGUFReader, library: Library, settings: Mapping[str, Any], options: EngineOptions
) -> Layout:
    """Return how the memory is laid out.

    Raises:
        InvalidParameter: the options contradict each other, or this libllama is too old for them.
    """
    trained = reader.summary.n_ctx_train or 0
    n_ctx = context_length(trained, settings.get("n_ctx"))
    n_ctx = -(-n_ctx // _CELL_PAD) * _CELL_PAD
    unified = _is_unified(library, options)
    n_cached = options.n_cached
    if n_cached is None:
        n_cached = options.n_parallel if unified and options.n_parallel > 1 else 0
    n_seq_max = min(options.n_parallel + n_cached, library.llama_max_parallel_sequences())
    n_cells = n_ctx * (options.n_parallel if unified else n_seq_max)
    if options.n_cells is not None:
        n_cells = -(-max(options.n_cells, n_seq_max) // _CELL_PAD) * _CELL_PAD
        n_ctx = min(n_ctx, n_cells)
    flash_attn = _flash_attention(reader, library, settings, n_ctx)
    params: dict[str, Any] = {"n_ctx": n_cells, "n_seq_max": n_seq_max}
    if library.context_layout.has("kv_unified"):
        params["kv_unified"] = unified
    if flash_attn is not None:
        params["flash_attn_type"] = int(flash_attn)
    return Layout(n_ctx, unified, flash_attn, params)


def _is_unified(library: Library, options: EngineOptions) -> bool:
    has_streams = library.context_layout.has("kv_unified")
    if options.kv_unified is False and options.n_cells is not None:
        raise InvalidParameter("n_cells is the size of a pool: set kv_unified", param="n_cells")
    if options.kv_unified is False and options.n_parallel > 1 and not has_streams:
        raise InvalidParameter(
            f"this libllama ({library.release}) has no streams: leave kv_unified out, or fetch a "
            "newer build with 'llamalite lib install'",
            param="kv_unified",
        )
    if options.kv_unified is not None:
        return options.kv_unified
    return not has_streams or options.n_cells is not None


def _flash_attention(
    reader: GGUFReader, library: Library, settings: Mapping[str, Any], n_ctx: int
) -> bool | None:
    """Return False where doing without it is better.

    On the CPU its results depend on how a prompt is cut into chunks and, for long contexts, on the
    number of threads; without it they don't, and single tokens are computed faster. It costs a
    buffer for the scores, and quantized values need flash attention.
    """
    if any(device.is_gpu for device in library.devices()) and settings.get("n_gpu_layers") != 0:
        return None
    quantized = {settings.get("cache_type_k"), settings.get("cache_type_v")} - {
        None, "f16", "f32", "bf16",
    }  # fmt: skip
    architecture = reader.metadata.get("general.architecture", "")
    n_head = reader.metadata.get(f"{architecture}.attention.head_count", 1)
    most_heads = n_head if isinstance(n_head, int) else max(n_head, default=1)
    n_bytes = 4 * most_heads * min(settings["n_ubatch"], settings["n_batch"]) * n_ctx
    return None if quantized or n_bytes > _MAX_SCORES_BYTES else False
