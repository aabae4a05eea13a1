"""Bytes of a context's memory and of its compute buffers.

Owns the formulas; what a model looks like comes from `model_shape`. Imports the standard library,
`llamalite.config`, `llamalite.errors`, `llamalite.gguf`'s constants and that sibling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from llamalite.config.cache_types import CACHE_TYPES as CACHE_TYPE_NAMES
from llamalite.errors import InvalidParameter
from llamalite.gguf.constants import BLOCKS, GGMLType
from llamalite.models.fit.model_shape import Layer, ModelShape

_PAD = 256
"""Contexts are rounded up to whole multiples of this many tokens (since b6716)."""
_F16, _F32 = 2, 4

CACHE_TYPES = {name: GGMLType[name.upper()] for name in CACHE_TYPE_NAMES}
"""What a cache can hold keys and values as, by the usual names."""


def cache_types(said: Mapping[str, Any]) -> dict[str, int]:
    """Return `cache_type_k` and `cache_type_v`, where said, as llama_context_params has them."""
    named = {"type_k": said.get("cache_type_k"), "type_v": said.get("cache_type_v")}
    return {field: CACHE_TYPES[name] for field, name in named.items() if name}


@dataclass(frozen=True)
class ContextSettings:
    """What a context is made with, by the names of llama_context_params, with their defaults.

    Attributes:
        n_ctx: tokens of all sequences together.
        type_k: tensor type of the cached keys; `type_v` of the values.
        n_seq_max: sequences at once.
        n_ubatch: most tokens computed at once.
        n_outputs: most rows of logits asked for in one batch; None = one a sequence.
        kv_unified: one cache for all sequences instead of one each.
        swa_full: sliding layers keep the whole context, so that a prefix can be used again.
        flash_attn: attention never holds all scores at once.

    Raises:
        InvalidParameter: a number is below 1, or the type is none.
    """

    n_ctx: int
    type_k: int = GGMLType.F16
    type_v: int = GGMLType.F16
    n_seq_max: int = 1
    n_ubatch: int = 512
    n_outputs: int | None = None
    kv_unified: bool = False
    swa_full: bool = True
    flash_attn: bool = True

    def __post_init__(self) -> None:
        for name in ("n_ctx", "n_seq_max", "n_ubatch", "n_outputs"):
            value = getattr(self, name)
            if name == "n_outputs" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidParameter(f"{name} is {value!r}, no whole number above 0", param=name)
        for name in ("type_k", "type_v"):
            if getattr(self, name) not in BLOCKS:
                raise InvalidParameter(
                    f"{name} is {getattr(self, name)!r}, no tensor type", param=name
                )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all settings."""
        return tuple(spec.name for spec in fields(cls))

    @property
    def n_streams(self) -> int:
        """Caches that lie side by side."""
        return 1 if self.kv_unified else self.n_seq_max

    @property
    def n_cells(self) -> int:
        """Tokens that one of them holds.

        Source: llama.cpp `llama_context` (n_ctx_seq).
        """
        return _padded(_padded(self.n_ctx) // self.n_streams)

    @property
    def n_tokens(self) -> int:
        """Most tokens computed at once."""
        return min(self.n_ubatch, self.n_cells * self.n_streams)

    @property
    def n_rows(self) -> int:
        """Rows of logits kept."""
        return max(self.n_outputs or 1, self.n_seq_max)


def sliding_cells(shape: ModelShape, settings: ContextSettings) -> int:
    """Return how many tokens a sliding layer's cache holds.

    Source: llama.cpp `llama_kv_cache_iswa`: the window and one ubatch, no more than the context.
    """
    if settings.swa_full:
        return settings.n_cells
    window = shape.window * (settings.n_seq_max if settings.kv_unified else 1)
    return _padded(min(settings.n_cells, window + settings.n_ubatch))


def cache_bytes(shape: ModelShape, settings: ContextSettings) -> tuple[int, ...]:
    """Return the bytes that each layer's cache and state take.

    Keys and values are one row a token of `head_count_kv × key_length` (`value_length`) elements,
    which covers MHA, GQA and MQA; with MLA the row is the compressed latent and its rope part
    (`key_length = kv_lora_rank + rope`, one head) and there are no values. States are float32 and
    don't grow with the context.

    Source: llama.cpp `llama_kv_cache`, `llama_kv_cache_dsa`, `llama_memory_recurrent`.
    """
    if not shape.has_memory:
        return (0,) * len(shape.layers)
    state = _F32 * (shape.conv_state + shape.recurrent_state) * settings.n_seq_max
    sliding = sliding_cells(shape, settings)
    # Without flash attention values lie transposed, all layers as wide as the widest.
    widest = 0 if settings.flash_attn else max(layer.value_width for layer in shape.layers)
    sizes = []
    for layer in shape.layers:
        total = state if layer.is_recurrent else 0
        if layer.has_attention:
            values = max(layer.value_width, widest)
            row = row_bytes(layer.key_width, settings.type_k) + row_bytes(values, settings.type_v)
            row += row_bytes(layer.index_width, settings.type_k)
            n_cells = sliding if layer.is_sliding else settings.n_cells
            total += row * n_cells * settings.n_streams
        sizes.append(total)
    return tuple(sizes)


def row_bytes(n_elements: int, tensor_type: int) -> int:
    """Return the bytes of a row, its last block filled up."""
    per_block, n_bytes = BLOCKS[tensor_type]
    return -(-n_elements // per_block) * n_bytes


class ComputeSize(NamedTuple):
    """Bytes of the buffers that a computation needs.

    Attributes:
        reserved_bytes: what libllama allocates for the worst case, a row of logits for each token
            of a ubatch; all of it is taken from a device, and of RAM only what is written to.
        used_bytes: what is written to on a CPU, the rows of logits asked for included.
        input_bytes: masks and embedded tokens, which stay in RAM also where layers don't.
        logits_bytes: of those, the rows kept for the caller.
    """

    reserved_bytes: int
    used_bytes: int
    input_bytes: int
    logits_bytes: int


def compute_size(shape: ModelShape, settings: ContextSettings) -> ComputeSize:
    """Estimate the compute buffers.

    The widest moment of a layer decides: in attention the hidden state and its copy with queries
    (before and after rope), keys and values, in a feed-forward layer gate, up and their product
    beside three hidden states. The coefficients are fitted to libllama's own "compute buffer size"
    on a CPU (b11146: within 6 % for llama, gemma, qwen-moe, deepseek2, lfm2, mamba and hybrid
    shapes at usual ubatches) and to what processes were seen to write to.

    Source: llama.cpp `llama_context::sched_reserve`, `output_reserve`, ggml-alloc.
    """
    n = settings.n_tokens
    masks = _mask_bytes(shape, settings)
    width = max((_layer_width(shape, layer, settings) for layer in shape.layers), default=0)
    busiest = masks + _F32 * n * width
    last = _F32 * n * (shape.n_vocab + 2 * shape.n_embd)
    row = _F32 * shape.n_vocab
    kept = row * settings.n_rows
    # ggml converts a matrix product's activations to the weights' dot type, f16 at the most.
    widest_input = max((_input_width(shape, layer) for layer in shape.layers), default=0)
    used = busiest + _F16 * n * widest_input + kept + row * min(n, settings.n_rows)
    # Buffers are laid out with gaps; one hidden state more covers most of them.
    hidden = _F32 * n * shape.n_embd
    return ComputeSize(max(busiest, last) + hidden, used, masks + hidden, kept)


def _mask_bytes(shape: ModelShape, settings: ContextSettings) -> int:
    """One mask for each kind of attention there is, in f16 with flash attention."""
    if not shape.has_memory:
        return _F32 * settings.n_tokens**2
    kinds = {layer.is_sliding for layer in shape.layers if layer.has_attention}
    cells = sum(sliding_cells(shape, settings) if slides else settings.n_cells for slides in kinds)
    return cells * settings.n_tokens * (_F16 if settings.flash_attn else _F32)


def _layer_width(shape: ModelShape, layer: Layer, settings: ContextSettings) -> int:
    """Float32 elements a token that live at a layer's busiest moment."""
    n_embd = shape.n_embd
    widths = [3 * layer.n_ff + 3 * n_embd]
    if layer.is_recurrent:
        widths.append(shape.ssm_width)
    if layer.has_attention and shape.latent:
        rank, before = shape.latent
        widths.append(layer.n_head * (shape.head_width + rank + before) + 4 * n_embd)
    elif layer.has_attention:
        queries = layer.n_head * shape.head_width
        widths.append(2 * queries + layer.key_width + layer.value_width + 2 * n_embd)
    if layer.has_attention and not settings.flash_attn:
        cells = sliding_cells(shape, settings) if layer.is_sliding else settings.n_cells
        widths[-1] += cells * layer.n_head
    return max(widths)


def _input_width(shape: ModelShape, layer: Layer) -> int:
    """Widest row of activations that a matrix is multiplied with."""
    heads = layer.n_head * (shape.latent[0] if shape.latent else shape.head_width)
    return max(shape.n_embd, layer.n_ff, heads if layer.has_attention else 0)


def _padded(n_tokens: int) -> int:
    return -(-n_tokens // _PAD) * _PAD
