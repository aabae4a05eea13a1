"""LoRA adapters and control vectors on a real model, with a generated adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from llamalite import LLM
from llamalite.core.adapter import LoraAdapter
from llamalite.core.batch import Batch
from llamalite.core.context import Context
from llamalite.core.model import Model
from llamalite.errors import AdapterError
from llamalite.ffi.library import Library
from llamalite.gguf import GGMLType, GGUFWriter

N_EMBD, RANK = 64, 4


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lora") / "adapter.gguf"
    rng = np.random.default_rng(3)
    with GGUFWriter(path) as writer:
        writer.add("general.architecture", "llama")
        writer.add("general.type", "adapter")
        writer.add("adapter.type", "lora")
        writer.add("adapter.lora.alpha", 8.0)
        for layer in range(5):
            name = f"blk.{layer}.attn_q.weight"
            a = rng.normal(0, 0.3, (RANK, N_EMBD)).astype(np.float32)
            b = rng.normal(0, 0.3, (N_EMBD, RANK)).astype(np.float32)
            writer.add_tensor(f"{name}.lora_a", (N_EMBD, RANK), GGMLType.F32, a.tobytes())
            writer.add_tensor(f"{name}.lora_b", (RANK, N_EMBD), GGMLType.F32, b.tobytes())
    return path


@pytest.fixture
def context(library: Library, stories: Path) -> Iterator[Context]:
    with (
        Model(library, stories) as model,
        Context(model, n_ctx=64, n_threads=1, n_threads_batch=1) as context,
    ):
        yield context


def logits(context: Context) -> np.ndarray:
    vocab = context.model.vocab
    batch = Batch(32, vocab.n_tokens)
    batch.extend(vocab.as_array(vocab.tokenize("Once upon a time")), 0, outputs="last")
    context.memory.clear()
    context.decode(batch)
    return context.logits().copy()


def test_an_adapter_changes_the_model_by_its_scale(context: Context, adapter: Path) -> None:
    base = logits(context)
    lora = LoraAdapter(context.model, adapter)
    context.set_loras([(lora, 1.0)])
    full = logits(context)
    context.set_loras([(lora, 0.1)])
    little = logits(context)
    context.set_loras([])
    assert np.allclose(logits(context), base, atol=1e-4)
    assert np.abs(full - base).max() > 0.05
    assert 0 < np.abs(little - base).max() < np.abs(full - base).max()


def test_an_adapter_of_another_model_is_refused(
    library: Library, smollm2: Path, context: Context, adapter: Path, tmp_path: Path
) -> None:
    with Model(library, smollm2) as other, pytest.raises(AdapterError, match="can't be used"):
        LoraAdapter(other, adapter)
    with pytest.raises(AdapterError, match="no adapter file"):
        LoraAdapter(context.model, tmp_path / "absent.gguf")
    text = tmp_path / "text.gguf"
    text.write_text("no adapter")
    with pytest.raises(AdapterError, match=r"text\.gguf"):
        LoraAdapter(context.model, text)


def test_llm_takes_adapters(stories: Path, adapter: Path) -> None:
    def text(scale: float) -> str:
        with LLM(stories, n_threads=1, loras=[(adapter, scale)], say=lambda line: None) as llm:
            return llm.generate("Once upon a time", temperature=0, max_tokens=24).text

    assert text(0.0) != text(4.0)


def test_a_control_vector_steers_and_is_cleared(context: Context) -> None:
    base = logits(context)
    vector = np.full((4, N_EMBD), 0.5, np.float32)
    context.set_control_vector(vector)
    assert np.abs(logits(context) - base).max() > 0.05
    context.set_control_vector(None)
    assert np.allclose(logits(context), base, atol=1e-4)
    with pytest.raises(AdapterError, match=r"\(4, 64\)"):
        context.set_control_vector(vector[:2])
