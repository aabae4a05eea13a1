from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_process import llamalite_here as llamalite
from support.gguf_models import write_vocabulary
from support.loopback_hub import LoopbackHub
from support.shaped_models import write_shaped

from llamalite.gguf import GGMLType, GGUFReader, GGUFWriter

REPO, FILE = "owner/Tiny-GGUF", "tiny-Q8_0.gguf"


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


@pytest.fixture
def installed(home: Path) -> Path:
    """A whole model in the folder for models, as large as they come small."""
    folder = home / "models"
    folder.mkdir(parents=True)
    return write_shaped(folder / "Own-Q8_0.gguf", "llama", n_embd=64, n_ff=64, n_vocab=256)


def test_a_model_here_shows_its_names_and_whether_it_fits(installed: Path) -> None:
    done = llamalite("alias", "mine", "own-q8_0")
    assert done.returncode == 0, done.stderr
    lines = dict(line.split("  ", 1) for line in show("MINE").splitlines())
    assert lines["installed as"].strip() == "Own-Q8_0, mine"
    assert lines["fits here"].strip().startswith("yes, with a context of 8192 tokens: ")
    found = json.loads(show("--json", str(installed)))
    assert found["path"] == str(installed)
    assert (found["is_here"], found["installed_as"], found["names"]) == (True, "Own-Q8_0", ["mine"])
    assert found["fit"]["fits"] is True
    assert found["fit"]["n_ctx"] == 8192


def test_where_a_model_came_from(home: Path, installed: Path, tmp_path: Path) -> None:
    source = installed.rename(tmp_path / "Elsewhere.gguf")
    done = llamalite("import", str(source))
    assert done.returncode == 0, done.stderr
    found = json.loads(show("--json", "elsewhere"))
    assert (found["source"], found["origin"]) == ("import", str(source))
    assert f"copied from {source}\n" in show("elsewhere")


def test_a_preset_says_what_it_adds(home: Path, installed: Path, tmp_path: Path) -> None:
    modelfile = tmp_path / "Modelfile"
    modelfile.write_text(
        'FROM own-q8_0\nSYSTEM """Be\nbrief."""\nPARAMETER temperature 0.2\n'
        "PARAMETER num_ctx 512\nMESSAGE user Hi\nMESSAGE assistant Ho\n"
    )
    assert llamalite("create", "terse", "-f", str(modelfile)).returncode == 0
    (home / "config.toml").write_text('n_batch = 64\n[models."terse".sampling]\ntop_k = 3\n')
    lines = dict(line.split("  ", 1) for line in show("terse").splitlines())
    assert lines["preset"].strip() == "FROM own-q8_0"
    assert lines["system"].strip() == "Be brief."
    for told in (
        "n_ctx 512, sampling.temperature 0.2 (preset terse)",
        f"n_batch 64 (file {home / 'config.toml'})",
        "sampling.top_k 3 (model terse)",
    ):
        assert told in lines["settings"]
    assert lines["messages"].strip() == "user: Hi; assistant: Ho"
    assert lines["fits here"].strip().startswith("yes, with a context of 512 tokens")
    found = json.loads(show("--json", "terse"))
    assert (found["preset"], found["system_prompt"]) == ("own-q8_0", "Be\nbrief.")
    assert found["settings"]["sampling.top_k"] == {"value": 3, "origin": "model terse"}
    assert found["messages"] == [["user", "Hi"], ["assistant", "Ho"]]
    plain = json.loads(show("--json", "own-q8_0"))
    assert (plain["preset"], plain["system_prompt"]) == (None, None)
    assert list(plain["settings"]) == ["n_batch"]


def test_the_projector_is_named(installed: Path) -> None:
    eyes = installed.with_name("Own-mmproj.gguf")
    eyes.write_bytes(installed.read_bytes())
    size = eyes.stat().st_size
    lines = dict(line.split("  ", 1) for line in show("own-q8_0").splitlines())
    assert lines["projector"].strip() == f"{eyes}, {size / 1e3:.1f} kB"
    found = json.loads(show("--json", str(installed)))
    assert found["projector"] == {"path": str(eyes), "n_bytes": size}
    assert found["fit"]["places"][0]["projector_bytes"] == size


def test_modelfile_prints_a_preset_back(installed: Path, tmp_path: Path) -> None:
    modelfile = tmp_path / "Modelfile"
    modelfile.write_text('from own-q8_0\nSYSTEM """Be\nbrief."""\nparameter temperature 0.2\n')
    done = llamalite("create", "terse", "-f", str(modelfile))
    assert done.returncode == 0, done.stderr
    printed = show("--modelfile", "terse")
    assert printed.splitlines()[0] == "FROM own-q8_0"
    assert "PARAMETER temperature 0.2\n" in printed
    again = tmp_path / "Modelfile2"
    again.write_text(printed)
    assert llamalite("create", "twin", "-f", str(again)).returncode == 0
    assert show("--modelfile", "twin") == printed
    assert json.loads(show("--modelfile", "--json", "twin"))["system_prompt"] == "Be\nbrief."
    assert show("--modelfile", str(installed)) == f"FROM {installed}\n"
    assert "FROM absent" not in llamalite("show", "--modelfile", "absent").stdout


def test_a_model_elsewhere_is_shown_without_fetching_it(hub: LoopbackHub, tmp_path: Path) -> None:
    content = write_vocabulary(tmp_path / FILE, 44_000, merges=True).read_bytes()
    # As much header in as much file as SmolLM2-135M in Q4_1 has.
    with GGUFReader(tmp_path / FILE) as reader:
        n_bytes = int(reader.data_offset / (1_785_664 / 98_362_432))
    files = {FILE: content + bytes(n_bytes - len(content)), "README.md": b"# Tiny\n" * 100}
    hub.repos[REPO] = files
    done = llamalite("show", "--json", f"hf:{REPO}:q8_0")
    assert done.returncode == 0, done.stderr
    assert hub.n_sent < 0.02 * n_bytes
    found = json.loads(done.stdout)
    assert (found["n_bytes"], found["is_here"]) == (n_bytes, False)
    assert found["n_vocab"] == 44_000
    assert "not on this computer: 1." in done.stderr
    assert not list((tmp_path / "hf").rglob("*.gguf"))
    assert not list((tmp_path / "home").rglob("*.gguf"))


def test_what_is_chosen_on_the_hub_is_said(hub: LoopbackHub, tmp_path: Path) -> None:
    content = write_shaped(tmp_path / "m.gguf", "llama", n_embd=64, n_ff=64, n_vocab=256)
    files = {f"m-{quant}.gguf": content.read_bytes() for quant in ("Q4_K_S", "Q4_K_M", "Q8_0")}
    hub.repos[REPO] = files
    done = llamalite("show", REPO)
    assert "taking Q4_K_M" in done.stderr
    assert f"{REPO}/m-Q4_K_M.gguf" in done.stdout
    assert "from            the Hub, not on this computer\n" in done.stdout
    assert "fits here       yes" in done.stdout
    by_address = show(f"{hub.storage_url}/{REPO}/m-Q8_0.gguf")
    assert "the address, not on this computer" in by_address
    assert show("--metadata=general.architecture", f"{REPO}/m-Q8_0.gguf") == "llama\n"
    for wanted, code in ((f"{REPO}:Q5_K_M", 5), (f"{REPO}/m-Q2_K.gguf", 5), ("owner/none:Q8_0", 8)):
        done = llamalite("show", wanted)
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.count("\n") == 1
