"""What decides a model's memory, read from its header: widths, heads, windows and states.

Owns the keys that size caches and buffers, and what llama.cpp assumes where a file leaves one out.
Knows no byte. Imports the standard library, `llamalite.errors` and `model_keys`.
Source: llama.cpp `llama_model_base::load_hparams`, `load_arch_hparams` of each architecture, and
`llama_model::create_memory` (b11146).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from llamalite.errors import BadField
from llamalite.models.fit.model_keys import Header, Keys

MAX_LAYERS = 512
"""llama.cpp's LLAMA_MAX_LAYERS; files with more are refused there too."""


class Layer(NamedTuple):
    """One block.

    Attributes:
        has_attention: it keeps keys and values; its own, not another layer's.
        is_recurrent: it keeps a state. Falcon-H1's layers do both.
        is_sliding: its attention sees a window.
        n_head: query heads.
        key_width: elements of one token's keys, all heads together; `value_width` likewise, 0 where
            the values are part of the keys (MLA).
        index_width: elements of one token's key for a sparse-attention indexer.
        n_ff: width of the feed-forward layer; with experts, of those used at once.
    """

    has_attention: bool
    is_recurrent: bool
    is_sliding: bool
    n_head: int
    key_width: int
    value_width: int
    index_width: int
    n_ff: int


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model.

    Attributes:
        layers: the blocks that a context runs; those of a draft head (NextN, MTP) are left out.
        n_blocks: all blocks, those included.
        window: tokens that sliding layers see; 0 = none slides.
        conv_state: float32 elements of one recurrent layer's convolution state per sequence.
        recurrent_state: float32 elements of its recurrent state per sequence.
        head_width: elements of one head's keys.
        latent: (rank of the latent values, width of a head's keys before compression) with MLA.
        ssm_width: widest activation of a recurrent layer, per token.
        has_memory: False for models that read all tokens at once (BERT and the like).
        is_approximate: its caches have a form that isn't modelled here.
    """

    architecture: str
    n_embd: int
    n_vocab: int
    n_ctx_train: int
    layers: tuple[Layer, ...]
    n_blocks: int
    window: int
    conv_state: int
    recurrent_state: int
    head_width: int
    latent: tuple[int, int] | None
    ssm_width: int
    has_memory: bool
    is_approximate: bool


class _Sliding(NamedTuple):
    """Which layers slide: all but every `period`th, unless the file lists them.

    `assumed` is the window where the key is missing, `fixed` one that ignores its value.
    """

    period: int
    dense_first: bool = False
    assumed: int = 0
    fixed: int = 0


_SLIDING = {
    "afmoe": _Sliding(4),
    "cohere2": _Sliding(4),
    "cohere2moe": _Sliding(4, dense_first=True),
    "exaone-moe": _Sliding(4, assumed=128),
    "exaone4": _Sliding(4, assumed=4096),  # the 32B alone, see `_window`
    "gemma2": _Sliding(2, assumed=4096),
    "gemma3": _Sliding(6),
    "gemma3n": _Sliding(5),
    "gpt-oss": _Sliding(2),
    "laguna": _Sliding(4, dense_first=True),
    "lfm2": _Sliding(0),
    "llama4": _Sliding(4, assumed=8192, fixed=8192),
    "mellum": _Sliding(4),
    "muse-glimmer": _Sliding(4),
    "olmo2": _Sliding(4),
    "plamo3": _Sliding(8),
    "smallthinker": _Sliding(4, dense_first=True, fixed=4096),
    # These list their layers; without the list libllama refuses them.
    **dict.fromkeys(
        ("dots3note", "gemma4", "granite_swa", "maple", "mimo2", "spark2_5", "step35"), _Sliding(1)
    ),
}
"""Others (Phi-3, Qwen2, Mistral) have the key in their files, and llama.cpp doesn't slide them."""

_RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
_HYBRID_BY_HEADS = frozenset(
    {
        *("bailingmoe3", "glm5-next", "granitehybrid", "jamba", "kimi-k3", "kimi-linear"),
        *("lfm2", "lfm2moe", "nemotron_h", "nemotron_h_moe", "plamo2"),
    }
)
"""A layer without key-value heads is recurrent."""
_HYBRID_BY_INTERVAL = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "qwen4exp": 4, "minimax-01": 8}
"""Every so-manieth layer has attention, unless the file lists the recurrent ones."""
_INDEXED = frozenset({"deepseek32", "glm-dsa", "hy_v4"})
_WITHOUT_MEMORY = frozenset(
    {
        *("bert", "dream", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "llada"),
        *("llada-moe", "modern-bert", "neo-bert", "nomic-bert", "nomic-bert-moe", "rnd1"),
        "wavtokenizer-dec",
    }
)
_APPROXIMATE = frozenset(
    {
        *("deepseek4", "dflash", "dots3note", "glm5-next", "graniteswitch", "minimax-m3"),
        *("nanbeige", "qwen4exp"),
    }
)


def shape_of(header: Header) -> ModelShape:
    """Return a model's sizes.

    Raises:
        BadField: the header lacks what no estimate can do without, or says something impossible.
    """
    keys = Keys(header)
    arch = keys.architecture
    n_blocks = keys.required("block_count")
    n_embd = keys.required("embedding_length")
    if not 0 < n_blocks <= MAX_LAYERS:
        raise BadField(
            f"{arch}.block_count is {n_blocks}, outside [1, {MAX_LAYERS}]: its memory can't be "
            "estimated",
            path=header.path,
        )
    n_layer = max(n_blocks - keys.count("nextn_predict_layers", 0), 0) or n_blocks
    window, slides = _sliding(keys, n_layer)
    n_head = keys.per_layer("attention.head_count", n_layer, 0)
    lora_rank = keys.count("attention.kv_lora_rank", 0)
    key_mla = keys.count("attention.key_length_mla", 0)
    is_latent = bool(key_mla and keys.count("attention.value_length_mla", 0))
    conv_state, recurrent_state, ssm_width = _states(keys, n_embd, n_head[0])
    return ModelShape(
        architecture=arch,
        n_embd=n_embd,
        n_vocab=keys.n_vocab(),
        n_ctx_train=keys.count("context_length", 0),
        layers=_layers(keys, n_layer, n_embd, n_head, slides, is_latent),
        n_blocks=n_blocks,
        window=window,
        conv_state=conv_state,
        recurrent_state=recurrent_state,
        head_width=_head_width(keys, "key", n_embd, n_head[0], False),
        latent=(lora_rank, key_mla) if is_latent else None,
        ssm_width=ssm_width,
        has_memory=arch not in _WITHOUT_MEMORY,
        is_approximate=arch in _APPROXIMATE,
    )


def _head_width(keys: Keys, which: str, n_embd: int, n_head: int, slides: bool) -> int:
    """Elements of one head's keys or values: its key, else the embedding shared out."""
    if not n_head:
        return 0
    width = keys.count(f"attention.{which}_length", n_embd // n_head)
    return keys.count(f"attention.{which}_length_swa", width) if slides else width


def _sliding(keys: Keys, n_layer: int) -> tuple[int, list[bool]]:
    """Return the window and which layers have it.

    Source: llama.cpp `load_swa_pattern`, `llama_hparams::set_swa_pattern`.
    """
    rule = _SLIDING.get(keys.architecture)
    none = 0, [False] * n_layer
    if rule is None or (keys.architecture == "exaone4" and n_layer != 64):
        return none
    window = keys.count("attention.sliding_window", rule.assumed)
    if not window:
        return none
    slides = keys.flags("attention.sliding_window_pattern", n_layer)
    if slides is None:
        period = keys.count("attention.sliding_window_pattern", rule.period)
        dense = 0 if rule.dense_first else period - 1
        slides = [period == 0 or layer % period != dense for layer in range(n_layer)]
    return (rule.fixed or window), slides


def _recurrent(keys: Keys, n_layer: int, n_head_kv: list[int], n_ff: list[int]) -> list[bool]:
    arch = keys.architecture
    if arch in _RECURRENT or arch == "falcon-h1":
        return [True] * n_layer
    if arch in _HYBRID_BY_INTERVAL:
        listed = keys.flags("attention.recurrent_layers", n_layer)
        interval = keys.count("full_attention_interval", _HYBRID_BY_INTERVAL[arch]) or 1
        return listed or [(layer + 1) % interval != 0 for layer in range(n_layer)]
    if arch in _HYBRID_BY_HEADS:
        both = arch.startswith("nemotron_h")  # here a layer may be feed-forward alone
        return [n_head_kv[i] == 0 and not (both and n_ff[i]) for i in range(n_layer)]
    return [False] * n_layer


def _layers(
    keys: Keys,
    n_layer: int,
    n_embd: int,
    n_head: list[int],
    slides: list[bool],
    is_latent: bool,
) -> tuple[Layer, ...]:
    arch = keys.architecture
    n_head_kv = n_head
    if keys.value("attention.head_count_kv") is not None:
        n_head_kv = keys.per_layer("attention.head_count_kv", n_layer, n_head[0])
    dense_ff = keys.per_layer("feed_forward_length", n_layer, 0)
    n_ff = _active_widths(keys, n_layer, n_embd, dense_ff)
    recurrent = _recurrent(keys, n_layer, n_head_kv, dense_ff)
    with_cache = n_layer
    if arch == "gemma3n":
        with_cache = 20  # the layers after reuse what these computed
    elif arch == "gemma4":
        with_cache = n_layer - keys.count("attention.shared_kv_layers", 0)
    indexed = keys.flags("attention.indexer.types", n_layer) or [True] * n_layer
    index_width = keys.count("attention.indexer.key_length", 0) if arch in _INDEXED else 0
    layers = []
    for i in range(n_layer):
        # NOTE: libllama divides by the first layer's heads, also where layers differ.
        key = _head_width(keys, "key", n_embd, n_head[0], slides[i])
        value = _head_width(keys, "value", n_embd, n_head[0], slides[i])
        keeps = i < with_cache and n_head_kv[i] > 0
        layers.append(
            Layer(
                has_attention=keeps and (not recurrent[i] or arch == "falcon-h1"),
                is_recurrent=recurrent[i],
                is_sliding=slides[i],
                n_head=n_head[i],
                key_width=key * n_head_kv[i],
                value_width=0 if is_latent else value * n_head_kv[i],
                index_width=index_width if indexed[i] else 0,
                n_ff=n_ff[i],
            )
        )
    return tuple(layers)


def _active_widths(keys: Keys, n_layer: int, n_embd: int, dense_ff: list[int]) -> list[int]:
    """Widths of the feed-forward layers as they compute: those of the experts used, together."""
    if not keys.count("expert_count", 0):
        return dense_ff
    used = keys.per_layer("expert_used_count", n_layer, 1)
    width = keys.per_layer("expert_feed_forward_length", n_layer, 0)
    n_dense = keys.count("leading_dense_block_count", 0)
    widths = []
    for layer in range(n_layer):
        expert = width[layer] or dense_ff[layer]
        # Gate, up and their product lie side by side, or the product and what comes out of it.
        active = used[layer] * max(expert, (n_embd + expert) // 3)
        widths.append(dense_ff[layer] if layer < n_dense else active)
    return widths


def _states(keys: Keys, n_embd: int, n_head: int) -> tuple[int, int, int]:
    """Return elements of the convolution state, of the recurrent state, and activation width.

    Source: llama.cpp `llama_hparams::n_embd_r`, `n_embd_s`. The width is measured (mamba, mamba2).
    """
    wkv = keys.count("wkv.head_size", 0)
    if wkv:
        shifts = keys.count("token_shift_count", 2)
        return shifts * n_embd, n_embd * wkv, 8 * n_embd
    short = keys.count("shortconv.l_cache", 0)
    if short:
        return n_embd * (short - 1), 0, 6 * n_embd
    conv = keys.count("ssm.conv_kernel", 0)
    kda = keys.count("kda.head_dim", 0)
    if kda:
        inner = n_head * kda
        return 3 * (conv - 1 if conv else 3) * inner, kda * inner, 8 * inner
    if keys.architecture == "minimax-01":
        width = _head_width(keys, "key", n_embd, n_head, False)
        return 0, width * width * n_head, 8 * width * n_head
    inner, state = keys.count("ssm.inner_size", 0), keys.count("ssm.state_size", 0)
    groups = keys.count("ssm.group_count", 0) * state
    columns = max(conv - 1, 0)
    return columns * (inner + 2 * groups), state * inner, 6 * inner + 4 * groups + n_embd
