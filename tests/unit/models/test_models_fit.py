"""Memory from a header: caches to the byte, and where layers go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.shaped_models import write_shaped

from llamalite.errors import BadField, InvalidParameter
from llamalite.gguf import GGMLType, GGUFReader, GGUFWriter
from llamalite.models.fit.estimate import Estimate, Share, estimate

MIB = 1 << 20
SMALL: dict[str, Any] = {"n_embd": 64, "n_ff": 64, "n_vocab": 256}
HEADS: dict[str, Any] = {"attention__key_length": 128, "attention__value_length": 128}
SSM: dict[str, Any] = {
    "ssm__conv_kernel": 4,
    "ssm__inner_size": 1024,
    "ssm__state_size": 128,
    "ssm__time_step_rank": 16,
    "ssm__group_count": 1,
}
MLA: dict[str, Any] = {
    "attention__q_lora_rank": 32,
    "attention__kv_lora_rank": 256,
    "attention__key_length": 288,
    "attention__value_length": 256,
    "attention__key_length_mla": 96,
    "attention__value_length_mla": 64,
    "rope__dimension_count": 32,
}


def of(path: Path, n_ctx: int = 2048, **settings: Any) -> Estimate:
    with GGUFReader(path) as reader:
        return estimate(reader, n_ctx, **settings)


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(arch: str, **how: Any) -> Path:
        return write_shaped(tmp_path / f"{arch}.gguf", arch, **{**SMALL, **how})

    return write


# What libllama b11146 logs as "KV buffer size" and "RS buffer size" for the same shapes, in MiB.
LOGGED: list[tuple[str, dict[str, Any], dict[str, Any], float]] = [
    ("llama", {"n_embd": 512, "n_head_kv": 2}, {}, 8),
    ("llama", {"n_embd": 512, "n_head_kv": 2}, {"type_k": 8, "type_v": 8}, 4.25),
    ("llama", {"n_embd": 512, "n_head_kv": 2}, {"n_ctx": 8192}, 32),
    ("deci", {"n_embd": 512, "n_head_kv": [8, 4, 2, 1, 8, 4, 2, 1]}, {}, 15),
    ("gemma2", {"n_head_kv": 2, "attention__sliding_window": 512, **HEADS}, {}, 16),
    ("gemma3", {"n_layer": 12, "n_head_kv": 2, **HEADS}, {"n_ctx": 8192}, 96),
    (
        "gemma3",
        {"n_layer": 12, "n_head_kv": 2, "attention__sliding_window": 512, **HEADS},
        {"n_ctx": 8192, "swa_full": False},
        26,
    ),
    ("deepseek2", {"n_head_kv": 1, **MLA}, {}, 9),
    ("mamba2", {"n_layer": 12, "n_head": 0, "n_head_kv": 0, **SSM}, {}, 6.18),
    ("mamba2", {"n_layer": 12, "n_head": 0, "n_head_kv": 0, **SSM}, {"n_seq_max": 8}, 49.41),
    (
        "granitehybrid",
        {"n_embd": 512, "n_head_kv": [0, 0, 0, 2, 0, 0, 0, 2], **SSM},
        {},
        2 + 3.09,
    ),
    (
        "lfm2",
        {"n_embd": 512, "n_head_kv": [0, 0, 2, 0, 0, 2, 0, 2], "shortconv__l_cache": 3},
        {},
        3 + 0.02,
    ),
]


@pytest.mark.parametrize(("arch", "how", "settings", "logged"), LOGGED)
def test_caches_are_what_libllama_allocates(
    written: Any, arch: str, how: dict[str, Any], settings: dict[str, Any], logged: float
) -> None:
    found = of(written(arch, **how), **settings)
    assert found.total.cache_bytes / MIB == pytest.approx(logged, abs=0.011)
    assert found.total.cache_bytes == sum(layer.cache_bytes for layer in found.layers)
    assert not found.is_approximate


def test_layers_differ_as_their_heads_do(written: Any) -> None:
    heads = [8, 4, 2, 1, 8, 4, 2, 1]
    layers = of(written("deci", n_head_kv=heads)).layers
    assert [layer.cache_bytes // layers[3].cache_bytes for layer in layers] == heads


def test_which_layers_slide(written: Any) -> None:
    def sliding(arch: str, **how: Any) -> str:
        how = {"n_layer": 8, "n_head_kv": 2, "attention__sliding_window": 256, **how}
        layers = of(written(arch, **how), 4096, swa_full=False).layers
        return "".join(
            "s" if layer.cache_bytes < layers[-1].cache_bytes * 2 / 3 else "." for layer in layers
        )

    assert sliding("gemma3", n_layer=12) == "sssss.sssss."
    assert sliding("gemma2") == "s.s.s.s."
    assert sliding("gemma3", attention__sliding_window_pattern=4) == "sss.sss."
    listed = [True, False, False, True, False, False, False, False]
    assert sliding("gemma3", attention__sliding_window_pattern=listed) == "s..s...."
    assert sliding("gemma3", attention__sliding_window=0) == "........"
    assert sliding("llama") == "........"  # Mistral's files have the key too


def test_states_do_not_grow_with_the_context(written: Any) -> None:
    path = written("mamba2", n_head=0, n_head_kv=0, **SSM)
    assert of(path, 256).total.cache_bytes == of(path, 8192).total.cache_bytes
    assert of(path, n_seq_max=4).total.cache_bytes == 4 * of(path).total.cache_bytes


def test_rwkv_state(written: Any) -> None:
    found = of(written("rwkv7", wkv__head_size=64))
    assert found.total.cache_bytes == 8 * 4 * (2 * 64 + 64 * 64)


def test_interval_hybrids_have_attention_every_fourth_layer(written: Any) -> None:
    path = written("qwen3next", n_head_kv=2, **SSM)
    few, many = of(path, 256).layers, of(path, 1024).layers
    grows = [a.cache_bytes < b.cache_bytes for a, b in zip(few, many, strict=True)]
    assert grows == [False, False, False, True] * 2


def test_shared_and_draft_layers_keep_nothing(written: Any) -> None:
    shared = of(written("gemma4", attention__shared_kv_layers=3)).layers
    assert [bool(layer.cache_bytes) for layer in shared] == [True] * 5 + [False] * 3
    draft = of(written("glm4moe", nextn_predict_layers=1)).layers
    assert len(draft) == 8
    assert draft[-1].cache_bytes == 0 < draft[-2].cache_bytes


def test_models_without_memory(written: Any) -> None:
    assert of(written("bert")).total.cache_bytes == 0


def test_unmodelled_caches_are_said_to_be(written: Any) -> None:
    assert of(written("deepseek4")).is_approximate


def test_sequences_share_the_context(written: Any) -> None:
    path = written("llama")
    assert of(path, 4096, n_seq_max=4).total.cache_bytes == of(path, 4096).total.cache_bytes
    assert (
        of(path, 4096, n_seq_max=4, kv_unified=True).total.cache_bytes
        == of(path, 4096).total.cache_bytes
    )
    # 1000 tokens are rounded to 1024, and each of three sequences' 341 to 512.
    assert of(path, 1000).total.cache_bytes == of(path, 1024).total.cache_bytes
    assert of(path, 1000, n_seq_max=3).total.cache_bytes == of(path, 1536).total.cache_bytes


def test_weights_are_the_files_tensors_by_group(written: Any) -> None:
    path = written("llama", tied=False)
    found = of(path)
    with GGUFReader(path) as reader:
        summary = reader.summary
        assert found.total.weights_bytes == summary.tensor_bytes
        assert [layer.weights_bytes for layer in found.layers] == [*summary.layer_bytes.values()]
    assert found.input_bytes == 64 * 256 * 2
    assert found.output_bytes == 64 * 256 * 2 + 64 * 4
    assert found.total == found.host
    assert found.devices == ()


def test_compute_grows_with_what_it_should(written: Any) -> None:
    path = written("llama", n_vocab=32000, n_head_kv=2)
    base = of(path)
    assert base.reserved_bytes > 4 * 512 * 32000
    assert base.host.compute_bytes < base.reserved_bytes  # only the rows asked for are written
    rows = of(path, n_outputs=512).host.compute_bytes - base.host.compute_bytes
    assert rows == 2 * 4 * 511 * 32000
    assert of(path, n_ubatch=128).reserved_bytes == base.reserved_bytes // 4
    assert of(path, 8192).host.compute_bytes > base.host.compute_bytes
    scores = of(path, flash_attn=False).host.compute_bytes - base.host.compute_bytes
    assert scores > 4 * 512 * 2048 * 7
    assert of(path, n_ubatch=4096).host.compute_bytes == of(path, n_ubatch=2048).host.compute_bytes


def test_experts_count_as_those_used(written: Any) -> None:
    sizes = {"expert_count": 8, "expert_feed_forward_length": 256}
    two = of(written("qwen3moe", expert_used_count=2, **sizes)).host.compute_bytes
    four = of(written("qwen3moe", expert_used_count=4, **sizes)).host.compute_bytes
    assert four - two > 3 * 4 * 512 * 2 * 250


def test_vocabularies_cost_memory(written: Any) -> None:
    tokens = [f"t{i}" for i in range(1000)]
    plain = of(written("llama", tokens=tokens, n_vocab=1000)).host.overhead_bytes
    merged = of(written("llama", tokens=tokens, merges=["t 1"] * 900, n_vocab=1000))
    assert plain - of(written("llama")).host.overhead_bytes == 160 * 1000
    assert merged.host.overhead_bytes - plain == 160 * 900


def test_layers_go_to_the_device_from_the_end(written: Any) -> None:
    path = written("llama")
    devices = [[layer.device for layer in of(path, n_gpu_layers=n).layers] for n in (0, 1, 3, 9)]
    assert devices == [[None] * 8, [None] * 8, [None] * 6 + [0] * 2, [0] * 8]
    output_alone = of(path, n_gpu_layers=1)
    on_device = Share(output_alone.output_bytes, 0, output_alone.reserved_bytes)
    assert output_alone.devices == (on_device,)
    everything = of(path, n_gpu_layers=-1)
    assert everything == of(path, n_gpu_layers=99)
    # The shared embedding lies in RAM for the input and on the device for the output.
    assert everything.total.weights_bytes == of(path).total.weights_bytes + 64 * 256 * 2
    assert everything.total.total_bytes == sum(
        share.total_bytes for share in (everything.host, *everything.devices)
    )


def test_devices_share_by_their_split(written: Any) -> None:
    layers = of(written("llama"), n_gpu_layers=9, split=(2, 1)).layers
    assert [layer.device for layer in layers] == [0] * 6 + [1] * 2
    with pytest.raises(InvalidParameter, match="split"):
        of(written("llama"), n_gpu_layers=9, split=(0, 0))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"n_ctx": 0}, "n_ctx is 0"),
        ({"n_ubatch": True}, "n_ubatch is True"),
        ({"n_seq_max": -1}, "n_seq_max is -1"),
        ({"type_k": 4}, "type_k is 4"),
        ({"n_batch": 5}, "no context setting 'n_batch'"),
    ],
)
def test_settings_are_checked(written: Any, settings: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidParameter, match=match):
        of(written("llama"), **settings)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({}, "general.architecture is missing"),
        ({"general.architecture": "x"}, "x.block_count is missing"),
        ({"general.architecture": "x", "x.block_count": 3}, "x.embedding_length is missing"),
        (
            {"general.architecture": "x", "x.block_count": 2**32 - 1, "x.embedding_length": 8},
            "outside",
        ),
        ({"general.architecture": "x", "x.block_count": "3"}, "no whole number"),
    ],
)
def test_headers_that_say_too_little(tmp_path: Path, keys: dict[str, Any], match: str) -> None:
    with GGUFWriter(tmp_path / "m.gguf") as writer:
        for key, value in keys.items():
            writer.add(key, value)
    with pytest.raises(BadField, match=match):
        of(tmp_path / "m.gguf")


def test_odd_values_are_read_as_missing(tmp_path: Path) -> None:
    keys = {
        "general.architecture": "gemma3",
        "gemma3.block_count": 4,
        "gemma3.embedding_length": 64,
        "gemma3.attention.head_count": "many",
        "gemma3.attention.head_count_kv": [1, 2],
        "gemma3.attention.sliding_window": 256,
        "gemma3.attention.sliding_window_pattern": [True],
        "gemma3.context_length": -5,
        "gemma3.expert_count": 2,
    }
    with GGUFWriter(tmp_path / "m.gguf") as writer:
        for key, value in keys.items():
            writer.add(key, value)
        writer.add_tensor("blk.99999.x", (4,), GGMLType.F32, bytes(16))
    found = of(tmp_path / "m.gguf")
    assert found.total.cache_bytes == 0
    assert found.host.weights_bytes == 16
