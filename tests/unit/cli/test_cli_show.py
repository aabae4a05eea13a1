from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_process import llamalite

from llamalite.gguf import GGMLType, GGUFWriter


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    with GGUFWriter(path) as writer:
        writer.add("general.architecture", "llama")
        writer.add("general.name", "Tiny \x1b[31mone")
        writer.add("llama.context_length", 4096)
        writer.add("llama.block_count", 2)
        writer.add("llama.attention.head_count", [4, 8])
        writer.add("llama.rope.freq_base", float("inf"))
        writer.add("tokenizer.ggml.model", "gpt2")
        writer.add("tokenizer.ggml.tokens", ["a", "b", "é"])
        writer.add("tokenizer.ggml.bos_token_id", 1)
        writer.add("tokenizer.ggml.padding_token_id", 2**32 - 1)
        writer.add("tokenizer.chat_template", "{{ plain }}\n")
        writer.add("tokenizer.chat_template.tool_use", "{{ tools }}")
        for layer in range(2):
            writer.add_tensor(f"blk.{layer}.w", (32, 2), GGMLType.F32, bytes(256))
        writer.add_tensor("output.weight", (32, 4), GGMLType.Q4_0, bytes(72))
    return str(path)


def show(*args: str) -> str:
    done = llamalite("show", *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_summary_says_what_matters_and_nothing_that_drives_a_terminal(model: str) -> None:
    text = show(model)
    lines = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert lines["parameters"] == "256"
    assert lines["context"] == "4096 tokens"
    assert lines["quantization"] == "2 F32 (512 bytes) + 1 Q4_0 (72 bytes)"
    assert lines["layers"] == "2, 256 bytes each, 72 bytes outside, heads 4 to 8, KV heads 4 to 8"
    assert lines["tokenizer"] == "gpt2, 3 tokens, bos 1"
    assert lines["chat"] == "templates  default, tool_use"
    assert "\x1b" not in text


def test_json_summary_is_json_in_the_strict_sense(model: str) -> None:
    text = show("--json", model)
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["n_ctx_train"] == 4096
    assert found["n_head"] == [4, 8]
    assert found["rope"]["freq_base"] is None
    assert found["quantization"]["F32"] == {"n_tensors": 2, "n_bytes": 512}
    assert found["layer_bytes"] == {"0": 256, "1": 256}


def test_tensors(model: str) -> None:
    assert show("--tensors", model).splitlines() == [
        "blk.0.w        F32   32×2  256",
        "blk.1.w        F32   32×2  256",
        "output.weight  Q4_0  32×4   72",
    ]
    rows = json.loads(show("--tensors", "--json", model))
    assert rows[2] == {"name": "output.weight", "type": "Q4_0", "shape": [32, 4], "n_bytes": 72}


def test_metadata(model: str) -> None:
    assert show("--metadata", "general.architecture", model) == "llama\n"
    assert show("--metadata", "llama.context_length", model) == "4096\n"
    assert show("--metadata", "tokenizer.ggml.tokens", model) == '["a", "b", "é"]\n'
    assert show("--metadata", "general.architecture", "--json", model) == '"llama"\n'
    done = llamalite("show", "--metadata", "context_length", model)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean llama.context_length?" in done.stderr


def test_template(model: str) -> None:
    done = llamalite("show", "--template", model)
    assert done.stdout == "{{ plain }}\n"
    assert "tool_use" in done.stderr
    assert llamalite("show", "--template", "-q", model).stderr == ""
    assert json.loads(show("--template", "--json", model))["tool_use"] == "{{ tools }}"


def test_failures_are_one_line(tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("hello")
    bare = tmp_path / "bare.gguf"
    GGUFWriter(bare).write()
    for code, args in (
        (4, [str(text)]),
        (5, [str(tmp_path / "absent.gguf")]),
        (2, ["--template", str(bare)]),
        (2, []),
        (2, ["--tensors", "--template", str(bare)]),
    ):
        done = llamalite("show", *args)
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.startswith("llamalite: ")
        assert done.stderr.count("\n") == 1
