from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from models_tiny_wheel import CONTENT
from support.gguf_models import raw_field, raw_file, raw_string, write_llama
from support.loopback_hub import LoopbackHub

from llamalite.config import ModelConfig, effective
from llamalite.errors import AmbiguousFile, DownloadError, ModelNotFound, Offline
from llamalite.models.names import catalog
from llamalite.models.names.catalog import CatalogEntry
from llamalite.models.resolve import resolve, resolve_model
from llamalite.models.store import installed
from llamalite.models.store.named import write_named


def gguf(label: str) -> bytes:
    fields = {"general.architecture": "llama", "general.name": label}
    return raw_file([raw_field(key, 8, raw_string(value)) for key, value in fields.items()])


def refusal(name: str | Path) -> str:
    with pytest.raises(ModelNotFound) as caught:
        resolve_model(name)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_path_to_a_file_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "no-suffix"
    path.write_bytes(b"GGUF")
    assert resolve_model(path) == path
    assert resolve_model(str(path)) == path
    monkeypatch.chdir(tmp_path)
    assert resolve_model("no-suffix") == Path("no-suffix")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_model("~/no-suffix") == path


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "there is no file 'x.gguf': check" in refusal("x.gguf")
    assert "there is no file './smollm2:135m'" in refusal("./smollm2:135m")
    assert "nor a folder" in refusal(str(tmp_path / "gone" / "x.gguf"))
    assert "there is no file 'smollm2:135m'" in refusal(Path("smollm2:135m"))
    (tmp_path / "models" / "old").mkdir(parents=True)
    assert "there is no file 'models/old/x.gguf'" in refusal("models/old/x.gguf")


def test_a_folder_is_refused_and_its_models_listed(tmp_path: Path) -> None:
    assert "is a folder without GGUF files" in refusal(tmp_path / "..")
    (tmp_path / "a.gguf").touch()
    assert "is a folder: give the path of a file in it (a.gguf)" in refusal(str(tmp_path))


def test_unknown_names_get_near_ones_or_where_to_look() -> None:
    message = refusal("smolm2")
    assert "did you mean smollm2:135m or " in message
    message = refusal("zzz")
    assert message.endswith("see 'llamalite list' and 'llamalite list --catalog'")
    assert len(message) < 150


@pytest.mark.parametrize("name", ["", "  ", "why\nnot", "x" * 5000, "nul\0.gguf", "~x/x", "~\0"])
def test_odd_names_are_refused_in_one_short_line(name: str) -> None:
    assert len(refusal(name)) < 600


def test_what_may_be_meant_as_a_path_is_said_to_be_none() -> None:
    with pytest.raises(DownloadError, match=r"^'owner/repo' is no file here, and .*refused"):
        resolve_model("owner/repo")
    for name in ("hf:owner/repo", "owner/repo:Q8_0", "qwen3:4b"):
        with pytest.raises(DownloadError, match="refused") as caught:
            resolve_model(name)
        assert "is no file here" not in str(caught.value)


def test_any_part_of_a_split_model_gives_the_first(tmp_path: Path) -> None:
    first, second = (tmp_path / f"m-0000{i}-of-00002.gguf" for i in (1, 2))
    second.touch()
    assert "m-00001-of-00002.gguf is not beside it" in refusal(second)
    first.touch()
    said: list[str] = []
    assert resolve_model(second, said.append) == first
    assert "taking its first file" in said[0]
    assert resolve_model(first, said.append) == first
    assert len(said) == 1


def test_a_quantization_is_found_on_the_hub_then_in_the_cache(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["o/r"] = {f"{name}.gguf": gguf(name) for name in ("m-Q4_0", "m-Q8_0", "x-Q4_0")}
    path = resolve_model("o/r:q8_0")
    assert path.read_bytes() == gguf("m-Q8_0")
    hub.seen.clear()
    assert resolve_model("hf:o/r:Q8_0") == path
    assert resolve_model("o/r/m-Q8_0.gguf") == path
    assert hub.seen == []
    with pytest.raises(AmbiguousFile, match=r"m-Q4_0.gguf, x-Q4_0.gguf"):
        resolve_model("o/r:Q4_0")
    assert "it has m-Q4_0.gguf, x-Q4_0.gguf, m-Q8_0.gguf" in refusal("o/r:Q2_K")
    assert "'o/r/no.gguf' is no file here, and o/r has no GGUF" in refusal("o/r/no.gguf")
    monkeypatch.setenv("LLAMALITE_OFFLINE", "1")
    assert resolve_model("o/r:Q8_0") == path
    with pytest.raises(Offline, match="forbids fetching it from"):
        resolve_model("o/r:Q4_0")


def test_all_parts_of_a_split_model_are_fetched(hub: LoopbackHub) -> None:
    names = [f"Q8_0/m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    hub.repos["o/split"] = {name: gguf(name) for name in names}
    first = resolve_model("o/split:Q8_0")
    assert sorted(path.name for path in first.parent.iterdir()) == [name[5:] for name in names]
    assert first.name == names[0][5:]
    (first.parent / names[1][5:]).resolve().unlink()
    hub.seen.clear()
    assert resolve_model("o/split:Q8_0") == first
    asked = {path.rpartition("/")[2] for _, _, path, _ in hub.seen if "/resolve/" in path}
    assert asked == {names[1][5:]}


def test_settings_and_projector_come_with_the_model(hub: LoopbackHub) -> None:
    hub.repos["o/sees"] = {
        "Q8_0/m-Q8_0.gguf": gguf("m"),
        "mmproj-F16.gguf": gguf("p"),
        "mmproj-F32.gguf": gguf("q"),
    }
    preset = ModelConfig(model="o/sees:Q8_0", n_ctx=77)
    write_named("seer", preset, replace=False)
    fetched = resolve("Seer")
    assert (fetched.name, fetched.preset, fetched.names) == ("Seer", preset, ("Seer", preset.model))
    assert fetched.projector is not None
    assert fetched.projector.read_bytes() == gguf("p")
    hub.seen.clear()
    said: list[str] = []
    assert resolve("seer", said.append) == replace(
        fetched, name="seer", names=("seer", preset.model)
    )
    assert (hub.seen, said) == ([], [])
    assert resolve("o/sees", said.append).path == fetched.path
    assert said == ["o/sees: taking Q8_0, the only model in this computer's copy of o/sees"]


@pytest.mark.parametrize(
    ("key", "typed"),
    [
        ("st", "st"), ("ST", "st.gguf"), ("st.gguf", "st"), ("st", "{path}"), ("{path}", "st"),
        ("st", "mario"), ("mario", "Mario"), ("st", "cwd/../st.gguf"),
        ("o/r:Q8_0", "hf:o/r:q8_0"), ("hf:o/r:q8_0", "o/r:Q8_0@main"), ("o/r:Q8_0@main", "r:q8_0"),
        ("hf://O/r/b-Q8_0.gguf", "o/r"), ("b-q8_0", "o/r/b-Q8_0.gguf"),
        ("smollm2", "smollm2:135m-q4_1"), ("smollm2", "smol"), ("smollm2:135m", "SmolLM2"),
    ],
)  # fmt: skip
def test_what_is_configured_for_a_model_holds_whatever_it_is_called(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, typed: str
) -> None:
    models = tmp_path / "home" / "models"
    (models / "cwd").mkdir(parents=True)
    st, snapshot = write_llama(models / "st.gguf"), tmp_path / "hub/models--o--r/snapshots"
    (snapshot / ("a" * 40)).mkdir(parents=True)
    write_llama(snapshot / ("a" * 40) / "b-Q8_0.gguf")
    (snapshot.parent / "refs").mkdir()
    (snapshot.parent / "refs" / "main").write_text("a" * 40)
    entry = catalog.find_entry("smollm2:135m")
    assert entry is not None
    content = write_llama(models / Path(entry.file).name).read_bytes()
    pinned = replace(entry, n_bytes=len(content))
    listed = tuple(pinned if entry.name == pinned.name else entry for entry in catalog.CATALOG)
    for module in (catalog, installed):
        monkeypatch.setattr(module, "CATALOG", listed)
    write_named("mario", ModelConfig(model=str(st)), replace=False)
    key, typed = key.format(path=st), typed.format(path=st)
    (tmp_path / "home" / "config.toml").write_text(f"models.'{key}'.n_ctx = 7\nmodels.x.n_ctx = 8")
    monkeypatch.chdir(models)
    found = resolve(typed)
    assert found.names[0] == typed
    assert effective({}, found.names).settings["n_ctx"] == 7
    assert hub.seen == []


def test_what_is_configured_for_a_model_holds_when_it_has_just_come(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    hub.repos["o/r"] = {"m-Q8_0.gguf": write_llama(tmp_path / "m").read_bytes()}
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text("[models.m-Q8_0]\nn_ctx = 7")
    assert effective({}, resolve("o/r").names).settings["n_ctx"] == 7


def test_what_is_fetched_for_a_family_is_not_what_a_name_of_the_user_s_stands_for(
    hub: LoopbackHub, entry: CatalogEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(catalog.ALIASES, "tiny", entry.name)
    write_named(entry.name, ModelConfig(model="o/other"), replace=False)
    assert resolve("tiny").path.read_bytes() == CONTENT


def test_a_projector_beside_a_file_is_found(tmp_path: Path) -> None:
    for name in ("m-Q8_0.gguf", "mmproj-F16.gguf", "text.txt"):
        (tmp_path / name).touch()
    assert resolve(tmp_path / "m-Q8_0.gguf").projector == tmp_path / "mmproj-F16.gguf"
    assert resolve(tmp_path / "text.txt").projector is None
    (tmp_path / "other-Q8_0.gguf").touch()
    assert resolve(tmp_path / "m-Q8_0.gguf").projector is None, "whose is it?"
    (tmp_path / "mmproj-m-F16.gguf").touch()
    assert resolve(tmp_path / "m-Q8_0.gguf").projector == tmp_path / "mmproj-m-F16.gguf"


def test_a_catalog_model_on_disk_needs_no_network(
    entry: CatalogEntry, empty_computer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMALITE_OFFLINE", "1")
    path = empty_computer / "home" / "models" / entry.file
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(entry.n_bytes))
    assert resolve_model("TINY:1k") == path
    path.write_bytes(bytes(entry.n_bytes - 1))
    with pytest.raises(Offline, match="forbids fetching"):
        resolve_model("TINY:1k")


def test_names_are_resolved_without_importing_huggingface_hub(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").touch()
    program = (
        "import sys; from llamalite.models.resolve import resolve_model;"
        f"resolve_model({str(tmp_path / 'm.gguf')!r});"
        "print(sorted({'huggingface_hub', 'numpy', 'httpx', 'httpx2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
