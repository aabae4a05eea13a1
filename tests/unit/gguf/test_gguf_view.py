from __future__ import annotations

from pathlib import Path

import pytest
from support.gguf_models import write_llama

from llamalite.gguf import GGMLType, GGUFReader, GGUFWriter, ModelSummary, describe

STORIES = Path(__file__).resolve().parents[4] / "shared" / "models" / "stories260K.gguf"


def summary_of(path: Path) -> ModelSummary:
    with GGUFReader(path) as reader:
        assert describe(reader) == reader.summary
        return reader.summary


def test_a_summary_outlives_its_reader(tmp_path: Path) -> None:
    summary = summary_of(write_llama(tmp_path / "m.gguf"))
    assert (summary.architecture, summary.name, summary.type) == ("llama", "Tiny", "model")
    assert (summary.file_type, summary.file_type_name) == (15, "Q4_K_M")
    assert summary.quantization_version == 2
    assert (summary.n_ctx_train, summary.n_embd, summary.n_layer) == (2048, 32, 2)
    assert (summary.n_head, summary.n_head_kv, summary.n_ff) == (8, (4, 2), 64)
    assert (summary.version, summary.byteorder, summary.split) == (3, "little", None)


def test_rope(tmp_path: Path) -> None:
    rope = summary_of(write_llama(tmp_path / "m.gguf")).rope
    assert (rope.dimension_count, rope.freq_base) == (4, 10000.0)
    assert (rope.scaling_type, rope.scaling_factor, rope.n_ctx_original) == ("yarn", 4.0, None)
    changes = {"llama.rope.scaling.factor": None, "llama.rope.scale_linear": 2.0}
    assert summary_of(write_llama(tmp_path / "old.gguf", **changes)).rope.scaling_factor == 2.0


def test_tokenizer(tmp_path: Path) -> None:
    summary = summary_of(write_llama(tmp_path / "m.gguf"))
    tokenizer = summary.tokenizer
    assert (tokenizer.model, tokenizer.pre) == ("gpt2", "smollm")
    assert tokenizer.n_vocab == summary.n_vocab == 3
    assert tokenizer.special_ids == {"bos": 0, "eos": 1}  # padding is -1: there is none
    assert (tokenizer.bos_id, tokenizer.eos_id) == (0, 1)
    assert (tokenizer.add_bos, tokenizer.add_eos) == (True, None)


def test_chat_templates_by_name(tmp_path: Path) -> None:
    templates = summary_of(write_llama(tmp_path / "m.gguf")).chat_templates
    assert templates == {
        "default": "{{ messages }}",
        "tool_use": "{{ tools }}",  # "rag" is listed too, but nowhere to be found
        "unlisted": "{{ 1 }}",
    }
    without = write_llama(tmp_path / "n.gguf", **{"tokenizer.chat_template": None})
    assert list(summary_of(without).chat_templates) == ["tool_use", "unlisted"]


def test_tensors_by_type_and_by_layer(tmp_path: Path) -> None:
    summary = summary_of(write_llama(tmp_path / "m.gguf"))
    assert summary.quantization == {
        GGMLType.Q4_K: (1, 288),
        GGMLType.Q8_0: (1, 204),
        GGMLType.NVFP4: (1, 72),
        GGMLType.F16: (1, 48),
        GGMLType.F32: (1, 20),
        GGMLType.I8: (1, 6),
    }
    assert next(iter(summary.quantization)) is GGMLType.Q4_K
    assert summary.quantization[GGMLType.Q8_0].n_bytes == 204
    assert summary.layer_bytes == {0: 288 + 20, 1: 48 + 6}
    assert summary.other_bytes == 204 + 72
    assert summary.tensor_bytes == 638
    assert summary.n_params == 32 * 6 + 256 * 2 + 5 + 24 + 6 + 128
    assert (summary.n_tensors, summary.n_bytes) == (6, (tmp_path / "m.gguf").stat().st_size)


def test_heads_for_all_layers_serve_as_kv_heads(tmp_path: Path) -> None:
    path = write_llama(tmp_path / "m.gguf", **{"llama.attention.head_count_kv": None})
    assert summary_of(path).n_head_kv == 8


def test_layers_in_longer_names(tmp_path: Path) -> None:
    with GGUFWriter(tmp_path / "t5.gguf") as writer:
        for name in ("enc.blk.3.w", "dec.blk.3.w", "blk.x.w", "notblk.4.w", "blk.٣.w", "blk.1"):
            writer.add_tensor(name, (1,), GGMLType.F32, bytes(4))
    summary = summary_of(tmp_path / "t5.gguf")
    assert (summary.layer_bytes, summary.other_bytes) == ({3: 8}, 16)


def test_an_empty_file_has_an_empty_summary(tmp_path: Path) -> None:
    GGUFWriter(tmp_path / "m.gguf").write()
    summary = summary_of(tmp_path / "m.gguf")
    assert summary.architecture is summary.n_layer is summary.file_type_name is None
    assert (summary.n_params, summary.chat_templates) == (0, {})


def test_a_real_model() -> None:
    if not STORIES.exists():
        pytest.skip(f"{STORIES} is not there")
    summary = summary_of(STORIES)
    assert (summary.architecture, summary.n_layer, summary.n_embd) == ("llama", 5, 64)
    assert (summary.n_head, summary.n_head_kv, summary.n_ctx_train) == (8, 4, 2048)
    assert (summary.n_vocab, summary.n_params) == (512, 292800)
    assert summary.quantization == {GGMLType.F32: (48, 4 * 292800)}
    assert len(set(summary.layer_bytes.values())) == 1
