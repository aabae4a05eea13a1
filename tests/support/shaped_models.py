"""Models of any shape that libllama loads and runs; unless filled, their weights are zeros."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llamalite.gguf import GGMLType, GGUFWriter
from llamalite.gguf.constants import tensor_n_bytes

Tensors = Iterator[tuple[str, tuple[int, ...]]]
Fill = Callable[[str, tuple[int, ...], GGMLType], bytes]

F32_NAMES = ("norm", "ssm_a", "ssm_d", "ssm_conv1d", "conv.weight", ".bias")
"""Tensors whose names hold one of these are float32; the rest have the model's type."""


def write_shaped(
    path: Path,
    arch: str,
    *,
    type: GGMLType = GGMLType.F16,
    n_embd: int = 512,
    n_layer: int = 8,
    n_ff: int = 2048,
    n_head: int = 8,
    n_head_kv: int | list[int] = 8,
    n_vocab: int = 8192,
    tokens: list[str] | None = None,
    merges: list[str] | None = None,
    tied: bool = True,
    fill: Fill | None = None,
    **keys: Any,
) -> Path:
    """Write a model; `keys` are its other metadata, `a__b_c` for `ARCH.a.b_c`.

    `fill` gives a tensor's content by its name, shape and type.
    """
    metadata: dict[str, Any] = {
        "vocab_size": n_vocab,
        "context_length": 8192,
        "embedding_length": n_embd,
        "block_count": n_layer,
        "feed_forward_length": n_ff,
        "attention.head_count": n_head,
        "attention.head_count_kv": n_head_kv,
        "attention.layer_norm_rms_epsilon": 1e-5,
        **{name.replace("__", "."): value for name, value in keys.items()},
    }
    with GGUFWriter(path) as writer:
        writer.add("general.architecture", arch)
        for key, value in metadata.items():
            if value is not None:
                writer.add(f"{arch}.{key}", value)
        _add_tokenizer(writer, tokens, merges)
        shapes = [("token_embd.weight", (n_embd, n_vocab)), (_output_norm(arch), (n_embd,))]
        if not tied:
            shapes.append(("output.weight", (n_embd, n_vocab)))
        for layer in range(n_layer):
            for name, shape in _layer(arch, layer, metadata):
                shapes.append((f"blk.{layer}.{name}", shape))
        for name, shape in shapes:
            kind = GGMLType.F32 if any(part in name for part in F32_NAMES) else type
            content = fill(name, shape, kind) if fill else bytes(tensor_n_bytes(shape, kind))
            writer.add_tensor(name, shape, kind, content)
    return path


def _output_norm(arch: str) -> str:
    return "token_embd_norm.weight" if arch == "lfm2" else "output_norm.weight"


def _add_tokenizer(writer: GGUFWriter, tokens: list[str] | None, merges: list[str] | None) -> None:
    if tokens is None:
        writer.add("tokenizer.ggml.model", "no_vocab")
        return
    writer.add("tokenizer.ggml.model", "gpt2" if merges else "llama")
    writer.add("tokenizer.ggml.tokens", tokens)
    writer.add("tokenizer.ggml.token_type", [1] * len(tokens))
    if merges:
        writer.add("tokenizer.ggml.pre", "default")
        writer.add("tokenizer.ggml.merges", merges)
    else:
        writer.add("tokenizer.ggml.scores", [0.0] * len(tokens))


def _layer(arch: str, layer: int, keys: dict[str, Any]) -> Tensors:
    n_embd = keys["embedding_length"]
    heads = keys["attention.head_count_kv"]
    n_head_kv = heads[layer] if isinstance(heads, list) else heads
    yield "attn_norm.weight", (n_embd,)
    if arch in ("mamba", "mamba2"):
        yield from _mamba(arch, keys)
        return
    if arch == "deepseek2":
        yield from _latent_attention(keys)
    elif arch == "lfm2" and n_head_kv == 0:
        yield "shortconv.conv.weight", (keys["shortconv.l_cache"], n_embd)
        yield "shortconv.in_proj.weight", (n_embd, 3 * n_embd)
        yield "shortconv.out_proj.weight", (n_embd, n_embd)
    elif arch == "granitehybrid" and n_head_kv == 0:
        yield from _mamba("mamba2", keys)
    else:
        yield from _attention(arch, keys, n_head_kv)
    yield "ffn_norm.weight", (n_embd,)
    yield from _feed_forward(arch, keys)
    if arch in ("gemma2", "gemma3"):
        yield "post_attention_norm.weight", (n_embd,)
        yield "post_ffw_norm.weight", (n_embd,)


def _feed_forward(arch: str, keys: dict[str, Any]) -> Tensors:
    n_embd, n_ff, n_expert = keys["embedding_length"], keys["feed_forward_length"], 0
    if arch == "qwen3moe":
        n_ff, n_expert = keys["expert_feed_forward_length"], keys["expert_count"]
        yield "ffn_gate_inp.weight", (n_embd, n_expert)
    suffix, experts = ("_exps", (n_expert,)) if n_expert else ("", ())
    yield f"ffn_gate{suffix}.weight", (n_embd, n_ff, *experts)
    yield f"ffn_up{suffix}.weight", (n_embd, n_ff, *experts)
    yield f"ffn_down{suffix}.weight", (n_ff, n_embd, *experts)


def _attention(arch: str, keys: dict[str, Any], n_head_kv: int) -> Tensors:
    n_embd, n_head = keys["embedding_length"], keys["attention.head_count"]
    width_k = keys.get("attention.key_length", n_embd // n_head)
    width_v = keys.get("attention.value_length", n_embd // n_head)
    yield "attn_q.weight", (n_embd, n_head * width_k)
    yield "attn_k.weight", (n_embd, n_head_kv * width_k)
    yield "attn_v.weight", (n_embd, n_head_kv * width_v)
    yield "attn_output.weight", (n_head * width_v, n_embd)
    if arch in ("gemma3", "lfm2", "qwen3moe"):
        yield "attn_q_norm.weight", (width_k,)
        yield "attn_k_norm.weight", (width_k,)


def _latent_attention(keys: dict[str, Any]) -> Tensors:
    n_embd, n_head = keys["embedding_length"], keys["attention.head_count"]
    q_rank, kv_rank = keys["attention.q_lora_rank"], keys["attention.kv_lora_rank"]
    width_k, width_v = keys["attention.key_length_mla"], keys["attention.value_length_mla"]
    rope = keys["rope.dimension_count"]
    yield "attn_q_a_norm.weight", (q_rank,)
    yield "attn_kv_a_norm.weight", (kv_rank,)
    yield "attn_q_a.weight", (n_embd, q_rank)
    yield "attn_q_b.weight", (q_rank, n_head * width_k)
    yield "attn_kv_a_mqa.weight", (n_embd, kv_rank + rope)
    yield "attn_k_b.weight", (width_k - rope, kv_rank, n_head)
    yield "attn_v_b.weight", (kv_rank, width_v, n_head)
    yield "attn_output.weight", (n_head * width_v, n_embd)


def _mamba(arch: str, keys: dict[str, Any]) -> Tensors:
    n_embd, inner = keys["embedding_length"], keys["ssm.inner_size"]
    conv, state, rank = keys["ssm.conv_kernel"], keys["ssm.state_size"], keys["ssm.time_step_rank"]
    if arch == "mamba":
        yield "ssm_in.weight", (n_embd, 2 * inner)
        yield "ssm_x.weight", (inner, rank + 2 * state)
        yield "ssm_dt.weight", (rank, inner)
        yield "ssm_a", (state, inner)
        yield "ssm_d", (inner,)
        width, bias = inner, inner
    else:
        groups = keys["ssm.group_count"]
        width, bias = inner + 2 * groups * state, rank
        yield "ssm_in.weight", (n_embd, inner + width + rank)
        yield "ssm_a", (1, rank)
        yield "ssm_d", (1, rank)
        yield "ssm_norm.weight", (inner // groups, groups)
    yield "ssm_conv1d.weight", (conv, width)
    yield "ssm_conv1d.bias", (width,)
    yield "ssm_dt.bias", (bias,)
    yield "ssm_out.weight", (inner, n_embd)
