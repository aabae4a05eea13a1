"""A small model made on the spot, whose weights take every fast path a CPU backend has.

Owns its shape and its weights' types. Imports `llamalite.gguf` alone. What it computes means
nothing; that it computes, and that the results are numbers, is the point.
"""

from __future__ import annotations

import os
import random
import struct

from llamalite.gguf.constants import GGMLType, tensor_n_bytes
from llamalite.gguf.writer import GGUFWriter

N_VOCAB = 512
"""Number of tokens; it has no tokenizer, so any id below this will do."""

_N_EMBD, _N_FF, _N_HEAD, _N_HEAD_KV = 256, 512, 4, 2

# One layer for each: the types that AMX and the repacked CPU kernels take, and plain ones.
# Widths and heights are multiples of 256, as super-blocks and all tile sizes ask for.
_LAYER_TYPES = (
    GGMLType.Q4_0,
    GGMLType.Q4_1,
    GGMLType.Q5_0,
    GGMLType.Q8_0,
    GGMLType.Q2_K,
    GGMLType.Q4_K,
    GGMLType.Q5_K,
    GGMLType.Q6_K,
    GGMLType.IQ4_NL,
    GGMLType.IQ4_XS,
    GGMLType.F16,
)

_HALF = struct.pack("<e", 0.01)  # scale of a block
_ZERO = bytes(2)  # minimum of a block
_SCALES = {
    # type: (bytes before the quants, bytes of quants, bytes after them)
    GGMLType.Q4_0: (_HALF, 16, b""),
    GGMLType.Q4_1: (_HALF + _ZERO, 16, b""),
    GGMLType.Q5_0: (_HALF, 20, b""),
    GGMLType.Q8_0: (struct.pack("<e", 0.001), 32, b""),
    GGMLType.Q2_K: (b"", 80, _HALF + _ZERO),
    GGMLType.Q4_K: (_HALF + _ZERO, 140, b""),
    GGMLType.Q5_K: (_HALF + _ZERO, 172, b""),
    GGMLType.Q6_K: (b"", 208, struct.pack("<e", 0.0001)),
    GGMLType.IQ4_NL: (struct.pack("<e", 0.001), 16, b""),
    GGMLType.IQ4_XS: (struct.pack("<e", 0.0001), 134, b""),
}


def write_probe_model(path: str | os.PathLike[str]) -> None:
    """Write the model, about 4 MB, in some milliseconds."""
    rng = random.Random(0)
    with GGUFWriter(path) as writer:
        for key, value in _metadata().items():
            writer.add(key, value)
        writer.add_tensor("token_embd.weight", *_weights(rng, GGMLType.Q8_0, _N_EMBD, N_VOCAB))
        writer.add_tensor("output_norm.weight", (_N_EMBD,), GGMLType.F32, _ones(_N_EMBD))
        writer.add_tensor("output.weight", *_weights(rng, GGMLType.Q6_K, _N_EMBD, N_VOCAB))
        n_kv = _N_EMBD * _N_HEAD_KV // _N_HEAD
        shapes = {
            "attn_q": (_N_EMBD, _N_EMBD),
            "attn_k": (_N_EMBD, n_kv),
            "attn_v": (_N_EMBD, n_kv),
            "attn_output": (_N_EMBD, _N_EMBD),
            "ffn_gate": (_N_EMBD, _N_FF),
            "ffn_up": (_N_EMBD, _N_FF),
            "ffn_down": (_N_FF, _N_EMBD),
        }
        for layer, kind in enumerate(_LAYER_TYPES):
            for norm in ("attn_norm", "ffn_norm"):
                name = f"blk.{layer}.{norm}.weight"
                writer.add_tensor(name, (_N_EMBD,), GGMLType.F32, _ones(_N_EMBD))
            for part, (width, height) in shapes.items():
                name = f"blk.{layer}.{part}.weight"
                writer.add_tensor(name, *_weights(rng, kind, width, height))


def _metadata() -> dict[str, str | int | float]:
    return {
        "general.architecture": "llama",
        "general.name": "llamalite's self-test",
        "llama.vocab_size": N_VOCAB,
        "llama.context_length": 256,
        "llama.embedding_length": _N_EMBD,
        "llama.block_count": len(_LAYER_TYPES),
        "llama.feed_forward_length": _N_FF,
        "llama.attention.head_count": _N_HEAD,
        "llama.attention.head_count_kv": _N_HEAD_KV,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": _N_EMBD // _N_HEAD,
        "tokenizer.ggml.model": "no_vocab",
    }


def _ones(count: int) -> bytes:
    return struct.pack("<f", 1.0) * count


def _weights(
    rng: random.Random, kind: GGMLType, width: int, height: int
) -> tuple[tuple[int, int], GGMLType, bytes]:
    """Shape, type and values of a matrix: random quants under a small, common scale."""
    n_bytes = tensor_n_bytes((width, height), kind)
    if kind == GGMLType.F16:
        values = struct.pack("<256e", *(rng.gauss(0, 0.02) for _ in range(256)))
        return (width, height), kind, values * (n_bytes // len(values))
    before, n_quants, after = _SCALES[kind]
    # PERF: sixty-four different blocks, over and over, are as good as all different ones.
    blocks = b"".join(before + rng.randbytes(n_quants) + after for _ in range(64))
    return (width, height), kind, (blocks * (n_bytes // len(blocks) + 1))[:n_bytes]
