from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_process import llamalite_here as llamalite
from support.loopback_hub import LoopbackHub
from support.shaped_models import write_shaped

REPO = "owner/Tiny-GGUF"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a Hub's cache with nothing in them."""
    monkeypatch.setenv("LLAMALITE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("LLAMALITE_LIB", "LLAMALITE_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "tiny\x1b[31m.gguf"
    return str(write_shaped(path, "llama", n_embd=64, n_ff=64, n_vocab=256))


def numbers(*args: str, code: int = 0) -> dict[str, Any]:
    done = llamalite("fit", "--json", *args)
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_table(model: str) -> None:
    done = llamalite("fit", "--ctx-size=2048", model)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "\x1b" not in done.stdout
    assert lines[1] == "context           2048 tokens (trained for 8192), cache in f16"
    assert [line.split()[0] for line in lines[4:11]] == [
        *("weights", "cache", "compute", "vocabulary,", "needed", "free", "fits")
    ]
    assert lines[10].split() == ["fits", "yes"]
    assert lines[-3].startswith("largest context   8192 tokens")
    assert "no libllama is installed" in lines[-1]


def test_settings_change_the_numbers(model: str) -> None:
    plain = numbers(model)
    asked = ("-c", "16384", "--cache-type=q8_0", "--cache-type-v=F32", "--ubatch-size=64")
    other = numbers(*asked, "--parallel=2", "--gpu-layers=all", model)
    assert (plain["n_ctx"], other["n_ctx"], other["n_seq_max"]) == (8192, 16384, 2)
    assert (other["type_k"], other["type_v"]) == ("Q8_0", "F32")
    small, large = plain["places"][0], other["places"][0]
    # Per element two bytes each, and 34 bytes a block of 32 with four bytes.
    assert large["cache_bytes"] / small["cache_bytes"] == 2 * (34 / 32 + 4) / (2 + 2)
    assert large["compute_bytes"] < small["compute_bytes"]
    assert other["n_gpu_layers"] == 0  # there is no GPU


def test_what_does_not_fit_has_its_exit_code_and_line(model: str) -> None:
    done = llamalite("fit", "--ctx-size=4000000000", model)
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
    assert "needs " in done.stderr
    assert "--ctx-size 8192 fits" in done.stderr
    assert done.stdout.splitlines()[10].split() == ["fits", "no"]


def test_a_model_elsewhere_is_not_fetched(hub: LoopbackHub, model: str, tmp_path: Path) -> None:
    content = Path(model).read_bytes() + bytes(10_000_000)
    hub.repos[REPO] = {"tiny-Q8_0.gguf": content, "mmproj-F16.gguf": bytes(1000)}
    found = numbers(f"{REPO}/tiny-Q8_0.gguf")
    assert found["model"] == f"{REPO}/tiny-Q8_0.gguf"
    assert found["projector"] == {"path": f"{REPO}/mmproj-F16.gguf", "n_bytes": 1000}
    assert found["total_bytes"] == numbers(model)["total_bytes"] + 1000
    assert hub.n_sent < 500_000
    assert not list((tmp_path / "hf").rglob("*.gguf"))


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--cache-type=q9"], 2, "which is not one of f32, f16, bf16"),
        (["--cache-type-v=F33"], 2, "--cache-type-v is 'f33'"),
        (["--ctx-size=-1"], 2, "--ctx-size must be at least 0"),
    ],
)
def test_wrong_settings_are_one_line(model: str, args: list[str], code: int, said: str) -> None:
    done = llamalite("fit", *args, model)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert said in done.stderr


def test_files_that_are_no_models_are_one_line(tmp_path: Path) -> None:
    odd = tmp_path / "odd.gguf"
    odd.write_bytes(b"GGUF" + bytes(100))
    for name in (str(odd), str(tmp_path / "absent.gguf")):
        done = llamalite("fit", name)
        assert done.returncode in (4, 5)
        assert (done.stdout, done.stderr.count("\n")) == ("", 1)
