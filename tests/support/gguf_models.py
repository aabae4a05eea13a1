"""GGUF files made for tests: by the writer, and by hand where the writer refuses."""

from __future__ import annotations

import functools
import random
import struct
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from llamalite.gguf import GGMLType, GGUFWriter, Typed, ValueType

V = ValueType
LONG = "é" * 130  # 260 bytes: its length doesn't fit one byte

SCALARS: dict[str, tuple[ValueType, Any]] = {
    "t.uint8": (V.UINT8, 255),
    "t.int8": (V.INT8, -128),
    "t.uint16": (V.UINT16, 65535),
    "t.int16": (V.INT16, -32768),
    "t.uint32": (V.UINT32, 2**32 - 1),
    "t.int32": (V.INT32, -(2**31)),
    "t.float32": (V.FLOAT32, 0.15625),
    "t.false": (V.BOOL, False),
    "t.true": (V.BOOL, True),
    "t.string": (V.STRING, "naïve 🦙"),
    "t.empty": (V.STRING, ""),
    "t.uint64": (V.UINT64, 2**64 - 1),
    "t.int64": (V.INT64, -(2**63)),
    "t.float64": (V.FLOAT64, 0.1),
}
ARRAYS: dict[str, tuple[ValueType, list[Any]]] = {
    "a.uint8": (V.UINT8, [0, 1, 255]),
    "a.int8": (V.INT8, [-128, 127]),
    "a.uint16": (V.UINT16, [65535, 1]),
    "a.int16": (V.INT16, [-32768, 5]),
    "a.uint32": (V.UINT32, [2**32 - 1, 0]),
    "a.int32": (V.INT32, [-(2**31), 7]),
    "a.float32": (V.FLOAT32, [0.5, -2.0]),
    "a.bool": (V.BOOL, [True, False, True]),
    "a.uint64": (V.UINT64, [2**64 - 1, 3]),
    "a.int64": (V.INT64, [-(2**63), 3]),
    "a.float64": (V.FLOAT64, [0.1, 1e300]),
    "a.string": (V.STRING, ["a", "", LONG, "\0" * 9, "🦙", *map(str, range(70)), LONG, "z"]),
}
NESTED = {"n.deep": [[[1, 2], [3]], [[4]]], "n.text": [["a", "b"], ["c"]] * 33}

TENSORS: list[tuple[str, tuple[int, ...], GGMLType, int]] = [
    ("token_embd.weight", (32, 6), GGMLType.Q8_0, 34 * 6),
    ("blk.0.attn_q.weight", (256, 2), GGMLType.Q4_K, 144 * 2),
    ("blk.0.attn_norm.weight", (5,), GGMLType.F32, 20),
    ("blk.1.attn_q.weight", (2, 3, 2, 2), GGMLType.F16, 48),
    ("blk.1.scale", (3, 1, 2), GGMLType.I8, 6),
    ("output.weight", (64, 2), GGMLType.NVFP4, 72),
]


def write_every_type(path: Path, *, nested: bool = True, **how: Any) -> Path:
    """Write a file with every value type, alone and in arrays, and tensors of 1 to 4 dimensions."""
    with GGUFWriter(path, **how) as writer:
        writer.add("general.architecture", "llama")
        for key, (kind, value) in SCALARS.items():
            writer.add(key, value, kind)
        for key, (kind, values) in ARRAYS.items():
            writer.add(key, values, kind)
        if nested:
            for key, values in NESTED.items():
                writer.add(key, values)
            writer.add("n.empty", [Typed([], V.UINT8), Typed([], V.STRING)])
        for name, shape, kind, n_bytes in TENSORS:
            writer.add_tensor(name, shape, kind, pattern(name, n_bytes))
    return path


def write_llama(path: Path, **changes: Any) -> Path:
    """Write a small model with the usual keys; `changes` maps keys to other values (None = out)."""
    keys: dict[str, Any] = {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "Tiny",
        "general.file_type": 15,
        "general.quantization_version": 2,
        "llama.context_length": 2048,
        "llama.embedding_length": 32,
        "llama.block_count": 2,
        "llama.feed_forward_length": 64,
        "llama.attention.head_count": 8,
        "llama.attention.head_count_kv": [4, 2],
        "llama.rope.dimension_count": 4,
        "llama.rope.freq_base": 10000.0,
        "llama.rope.scaling.type": "yarn",
        "llama.rope.scaling.factor": 4.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": ["<s>", "</s>", "a"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 2**32 - 1,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_templates": ["tool_use", "rag"],
        "tokenizer.chat_template": "{{ messages }}",
        "tokenizer.chat_template.tool_use": "{{ tools }}",
        "tokenizer.chat_template.unlisted": "{{ 1 }}",
    }
    keys.update(changes)
    with GGUFWriter(path) as writer:
        for key, value in keys.items():
            if value is not None:
                writer.add(key, value)
        for name, shape, kind, n_bytes in TENSORS:
            writer.add_tensor(name, shape, kind, pattern(name, n_bytes))
    return path


def write_vocabulary(path: Path, n_vocab: int = 262_144, *, merges: bool = False) -> Path:
    """Write a model whose vocabulary has the size and the token lengths of the largest in use."""
    path.write_bytes(_vocabulary(n_vocab, merges))
    return path


@functools.lru_cache(maxsize=4)  # some tests write the same again and again
def _vocabulary(n_vocab: int, merges: bool) -> bytes:
    tokens = _tokens(n_vocab)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.gguf"
        with GGUFWriter(path) as writer:
            writer.add("general.architecture", "gemma3")
            writer.add("gemma3.block_count", 26)
            writer.add("tokenizer.ggml.model", "llama")
            writer.add("tokenizer.ggml.tokens", tokens, V.STRING)
            writer.add("tokenizer.ggml.scores", [-float(i) for i in range(n_vocab)], V.FLOAT32)
            writer.add("tokenizer.ggml.token_type", [1] * n_vocab, V.INT32)
            if merges:
                pairs = zip(tokens, reversed(tokens), strict=True)
                texts = [f"{a[:4]} {b[:4]}" for a, b in pairs]
                writer.add("tokenizer.ggml.merges", texts, V.STRING)
            writer.add("tokenizer.chat_template", "{{ messages }}" * 300)
            for layer in range(26):
                for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"):
                    name = f"blk.{layer}.{part}.weight"
                    writer.add_tensor(name, (32, 4), GGMLType.Q8_0, bytes(136))
        return path.read_bytes()


@functools.lru_cache(maxsize=2)
def _tokens(n_vocab: int) -> list[str]:
    rng = random.Random(n_vocab)
    lengths = [max(1, min(48, int(rng.gammavariate(3, 2.2)))) for _ in range(n_vocab)]
    letters = "".join(rng.choices("etaoinshrdlu▁é", k=4096))
    return [letters[(at := rng.randrange(4000)) : at + length] for length in lengths]


def pattern(name: str, n_bytes: int) -> bytes:
    """Return bytes that differ from name to name."""
    return random.Random(name).randbytes(n_bytes)


def raw_string(text: str | bytes) -> bytes:
    """Return a string as little-endian GGUF stores it."""
    content = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(content)) + content


def raw_field(key: str | bytes, kind: int, payload: bytes) -> bytes:
    """Return a metadata field as it lies in a file."""
    return raw_string(key) + struct.pack("<I", kind) + payload


def raw_array(kind: int, count: int, payload: bytes = b"") -> bytes:
    """Return an array whose count may lie."""
    return struct.pack("<IQ", kind, count) + payload


def raw_tensor(
    name: str | bytes, shape: Sequence[int], kind: int, offset: int, n_dims: int | None = None
) -> bytes:
    """Return a line of the tensor table; `n_dims` may lie."""
    dims = struct.pack(f"<{len(shape)}Q", *shape)
    count = len(shape) if n_dims is None else n_dims
    return raw_string(name) + struct.pack("<I", count) + dims + struct.pack("<IQ", kind, offset)


def raw_file(
    fields: Iterable[bytes] = (),
    tensors: Iterable[bytes] = (),
    values: bytes = b"",
    *,
    n_fields: int | None = None,
    n_tensors: int | None = None,
) -> bytes:
    """Return a little-endian version 3 file; the counts may lie."""
    fields, tensors = list(fields), list(tensors)
    counts = (
        len(tensors) if n_tensors is None else n_tensors,
        len(fields) if n_fields is None else n_fields,
    )
    header = b"GGUF" + struct.pack("<IQQ", 3, *counts) + b"".join(fields + tensors)
    return header + bytes(-len(header) % 32) + values
