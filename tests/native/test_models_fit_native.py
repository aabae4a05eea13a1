"""The estimate against the memory that a process really takes: real and generated models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.shaped_models import write_shaped

from llamalite.ffi.library import Library
from llamalite.gguf import GGMLType, GGUFReader
from llamalite.models.fit.estimate import Estimate, estimate

MIB = 1 << 20
CHILD = """
import json, logging, re, sys
import numpy as np
import psutil
from llamalite.core.batch import Batch
from llamalite.core.context import Context
from llamalite.core.model import Model
from llamalite.ffi.library import open_library
from llamalite.libs.install import ensure_library

path, settings = sys.argv[1], json.loads(sys.argv[2])
logged = {"model": 0.0, "KV": 0.0, "RS": 0.0, "compute": 0.0, "CPU_REPACK": 0.0}

class Listen(logging.Handler):
    def emit(self, record):
        found = re.search(
            r"(\\S+) (model|KV|RS|compute) buffer size = +([\\d.]+) MiB", record.getMessage()
        )
        if found:
            logged[found[2]] += float(found[3])
            logged["CPU_REPACK"] += float(found[3]) * (found[1] == "CPU_REPACK")

logging.getLogger("llamalite").setLevel(logging.INFO)
logging.getLogger("llamalite").addHandler(Listen())
library = open_library(ensure_library())
library.context_defaults()
process = psutil.Process()
before = process.memory_info().rss
model = Model(library, path, n_gpu_layers=0)
context = Context(model, n_threads=1, n_threads_batch=1, **settings)
count = min(settings.get("n_ubatch", 512), settings["n_ctx"] // settings.get("n_seq_max", 1))
batch = Batch(count, model.vocab.n_tokens, context.n_seq_max)
for pos in range(0, int(sys.argv[3]) or count, count):
    batch.clear()
    batch.extend(np.ones(count, np.int32), pos, outputs="last")
    context.decode(batch)
print(json.dumps({"rss": process.memory_info().rss - before, **logged}))
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="resident sizes are compared on Linux alone"
)


def compare(path: Path, n_fill: int = 0, **settings: Any) -> tuple[Estimate, dict[str, float]]:
    """Return the estimate, and what a child process measured and libllama logged (MiB).

    The child computes one ubatch, or `n_fill` tokens.
    """
    environment = {**os.environ, "LLAMALITE_LOG": ""}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), json.dumps(settings), str(n_fill)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    settings["flash_attn"] = settings.pop("flash_attn_type", 1) != 0
    with GGUFReader(path) as reader:
        return estimate(reader, **settings), json.loads(done.stdout)


def check(found: Estimate, measured: dict[str, float]) -> None:
    assert found.total.cache_bytes / MIB == pytest.approx(measured["KV"] + measured["RS"], abs=0.02)
    assert found.reserved_bytes / MIB == pytest.approx(measured["compute"], rel=0.15)
    # Repacked weights lie in memory twice as long as the system leaves the file's pages there.
    resident = measured["rss"] - measured["CPU_REPACK"] * MIB
    assert found.total.total_bytes == pytest.approx(resident, rel=0.10)


@pytest.mark.parametrize(
    "settings",
    [
        {"n_ctx": 512},
        {"n_ctx": 8192, "n_ubatch": 64, "type_k": 8, "type_v": 8},
        {"n_ctx": 2048, "n_ubatch": 64, "type_k": 2, "type_v": 2},
        {"n_ctx": 4096, "n_ubatch": 64, "n_seq_max": 4},
    ],
    ids=json.dumps,
)
def test_smollm2(library: Library, smollm2: Path, settings: dict[str, Any]) -> None:
    check(*compare(smollm2, **settings))


SSM: dict[str, Any] = {
    "ssm__conv_kernel": 4,
    "ssm__inner_size": 1024,
    "ssm__state_size": 128,
    "ssm__time_step_rank": 16,
    "ssm__group_count": 1,
}
GEMMA: dict[str, Any] = {
    "n_layer": 12,
    "n_head": 4,
    "n_head_kv": 2,
    "attention__key_length": 128,
    "attention__value_length": 128,
    "attention__sliding_window": 512,
}
MLA: dict[str, Any] = {
    "n_head_kv": 1,
    "attention__q_lora_rank": 256,
    "attention__kv_lora_rank": 256,
    "attention__key_length": 288,
    "attention__value_length": 256,
    "attention__key_length_mla": 96,
    "attention__value_length_mla": 64,
    "rope__dimension_count": 32,
    "leading_dense_block_count": 8,
    "expert_feed_forward_length": 256,
    "expert_shared_count": 1,
    "expert_count": 4,
    "expert_used_count": 2,
}
ROPE = {"rope__dimension_count": 64}
SHAPES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "MHA, 8192 tokens": ("llama", {**ROPE}, {"n_ctx": 8192}),
    "own output, q8_0": (
        "llama",
        {"type": GGMLType.Q8_0, "tied": False, "n_vocab": 32000, "n_layer": 16, **ROPE},
        {"n_ctx": 2048, "type_k": 8, "type_v": 8},
    ),
    "no flash attention": (
        "llama",
        {"n_layer": 4, **ROPE},
        # All scores at once: what they take grows until the context is full.
        {"n_ctx": 512, "flash_attn_type": 0, "n_fill": 512},
    ),
    "GQA, a full context": (
        "llama",
        {"n_head_kv": 2, "n_layer": 4, **ROPE},
        {"n_ctx": 1024, "n_fill": 1024},
    ),
    "windows alone": ("gemma3", GEMMA, {"n_ctx": 8192, "swa_full": False}),
    "windows, every other": ("gemma2", GEMMA, {"n_ctx": 2048, "type_k": 8, "type_v": 8}),
    "experts": (
        "qwen3moe",
        {"expert_count": 8, "expert_used_count": 2, "expert_feed_forward_length": 512}
        | {"attention__key_length": 64, "attention__value_length": 64, "n_head_kv": 2},
        {"n_ctx": 2048},
    ),
    "latent attention": ("deepseek2", MLA, {"n_ctx": 8192}),
    "recurrent": (
        "mamba2",
        {"n_head": 0, "n_head_kv": 0, "n_ff": 0, "n_layer": 16, **SSM},
        {"n_ctx": 2048, "n_seq_max": 4, "n_ubatch": 256},
    ),
    "hybrid": ("granitehybrid", {"n_head_kv": [0, 0, 0, 2] * 2, **SSM}, {"n_ctx": 8192}),
    "short convolutions": (
        "lfm2",
        {"n_head_kv": [0, 0, 2, 0, 0, 2, 0, 2], "shortconv__l_cache": 3},
        {"n_ctx": 2048},
    ),
    "repacked on many processors": (
        "llama",
        {"type": GGMLType.Q4_0, "n_layer": 32, **ROPE},
        {"n_ctx": 2048},
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_generated_shapes(library: Library, tmp_path: Path, name: str) -> None:
    arch, how, settings = SHAPES[name]
    path = write_shaped(tmp_path / "shape.gguf", arch, **how)
    check(*compare(path, **{"n_ubatch": 128, **settings}))
