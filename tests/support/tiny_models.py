"""Models of a few kilobytes with random weights, one for each kind of memory.

What they generate means nothing, but differs with every token they have seen, and they take some
100 µs a step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from support.shaped_models import write_shaped

from llamalite.gguf import GGMLType

N_VOCAB = 256
N_SWA = 32

_SSM = {
    "ssm__conv_kernel": 4,
    "ssm__inner_size": 128,
    "ssm__state_size": 16,
    "ssm__time_step_rank": 8,
    "ssm__group_count": 1,
}
_HEADS = {
    "n_head": 4,
    "n_head_kv": 2,
    "attention__key_length": 16,
    "attention__value_length": 16,
    "rope__dimension_count": 16,
}
_SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "dense": ("llama", _HEADS),
    "sliding": ("gemma3", {**_HEADS, "n_layer": 6, "attention__sliding_window": N_SWA}),
    "recurrent": ("mamba", {**_SSM, "n_head": 0, "n_head_kv": 0, "n_ff": 0}),
    "recurrent2": ("mamba2", {**_SSM, "n_head": 0, "n_head_kv": 0, "n_ff": 0}),
    "hybrid": ("granitehybrid", {**_HEADS, **_SSM, "n_head_kv": [0, 0, 0, 2]}),
    "convolutions": ("lfm2", {**_HEADS, "n_head_kv": [0, 0, 2, 0], "shortconv__l_cache": 3}),
}
KINDS = tuple(_SHAPES)


def write_tiny(path: Path, kind: str, seed: int = 0) -> Path:
    """Write a model of one of KINDS."""
    arch, shape = _SHAPES[kind]
    generator = np.random.default_rng(seed)

    def fill(name: str, shape: tuple[int, ...], type: GGMLType) -> bytes:
        dtype = np.float32 if type == GGMLType.F32 else np.float16
        return _weights(generator, name, shape).astype(dtype).tobytes()

    return write_shaped(
        path,
        arch,
        fill=fill,
        tied=False,
        **{"n_embd": 64, "n_layer": 4, "n_ff": 128, "n_vocab": N_VOCAB, **shape},
    )


def _weights(generator: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    noise = generator.standard_normal(shape[::-1])
    if "norm" in name:
        return 1 + 0.1 * noise
    if "ssm_a" in name:  # what a state forgets at each token
        return -np.exp(0.5 * noise - 2)
    if "ssm_dt.bias" in name:
        return noise - 2
    if "ssm_d" in name:
        return 1 + 0.1 * noise
    if "embd" in name:
        return noise
    gain = 0.7 if "ssm_" in name else 1.5  # more lets states grow without end
    return gain * noise / np.sqrt(shape[0])
