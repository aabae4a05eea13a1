"""The list of models, made from what lies on the disk."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.gguf_models import write_llama
from support.hub_cache import add_snapshot

from llamalite import config
from llamalite.config import ModelConfig
from llamalite.errors import AmbiguousFile
from llamalite.gguf import GGUFWriter
from llamalite.models.names import catalog
from llamalite.models.store.finding import find_at, stands_for
from llamalite.models.store.installed import InstalledModel, find_installed, installed_models
from llamalite.models.store.named import all_named, write_named
from llamalite.models.store.prune import find_leftovers
from llamalite.models.store.records import all_records, read_record, update_record
from llamalite.models.store.verify import verify_models

REPO = "owner/Tiny-GGUF"


def names(**how: object) -> list[str]:
    return [model.name for model in installed_models(**how)]  # type: ignore[arg-type]


def only() -> InstalledModel:
    (model,) = installed_models()
    return model


def test_nothing_is_here(tmp_path: Path) -> None:
    assert installed_models() == []
    assert find_installed("tiny") is None
    assert not (tmp_path / "home").exists()


def test_a_file_in_the_folder_for_models(models: Path) -> None:
    path = write_llama(models / "Tiny.Q4_K_M.gguf")
    model = only()
    assert model == InstalledModel(
        name="Tiny.Q4_K_M",
        reference=None,
        revision=None,
        paths=(path,),
        source="file",
        origin="",
        n_bytes=path.stat().st_size,
        modified=path.stat().st_mtime_ns / 1e9,
        quantization="Q4_K_M",
        n_params=model.n_params,
        architecture="llama",
        n_ctx_train=2048,
    )
    assert model.n_params
    update_record(path, source="url", origin="https://h/T.gguf", sha256="ab", last_used=7.0)
    model = only()
    assert (model.source, model.origin, model.sha256) == ("url", "https://h/T.gguf", "ab")
    assert model.last_used == 7.0
    path.unlink()
    assert installed_models() == []


def test_another_folder_can_be_named(tmp_path: Path) -> None:
    write_llama(tmp_path / "Tiny.gguf")
    assert names(models_dir=tmp_path) == ["Tiny"]
    assert names() == []


def test_the_header_says_what_the_name_does_not(models: Path) -> None:
    write_llama(models / "plain.gguf")
    assert only().quantization == "Q4_K_M"  # general.file_type 15


def test_models_of_other_programs_in_the_hubs_cache(
    cache: Path, content: Callable[..., bytes]
) -> None:
    files = {"Tiny-Q4_K_M.gguf": content("a"), "Tiny-Q8_0.gguf": content("b"), "README.md": b"#"}
    snapshot = add_snapshot(cache, REPO, files)
    four, eight = installed_models()
    assert [four.name, eight.name] == [f"{REPO}:Q4_K_M", f"{REPO}:Q8_0"]
    assert four.reference == f"{REPO}/Tiny-Q4_K_M.gguf"
    assert (four.source, four.origin, four.revision) == ("hub", REPO, "main")
    assert four.paths == (snapshot / "Tiny-Q4_K_M.gguf",)
    assert four.sha256 == four.path.resolve().name
    assert four.n_bytes == len(files["Tiny-Q4_K_M.gguf"])


def test_a_cache_without_links(cache: Path, content: Callable[..., bytes]) -> None:
    add_snapshot(cache, REPO, {"Tiny-Q4_K_M.gguf": content()}, links=False)
    assert (only().name, only().sha256) == (f"{REPO}:Q4_K_M", None)


def test_a_model_of_the_catalog_has_its_short_name(
    cache: Path, content: Callable[..., bytes]
) -> None:
    entry = next(entry for entry in catalog.CATALOG if entry.name == "smollm2:360m")
    add_snapshot(cache, entry.repo, {entry.file: content()})
    assert names() == ["smollm2:360m"]
    add_snapshot(cache, entry.repo, {entry.file: content("b")}, refs=["v2"])
    assert names() == [f"{entry.repo}:{entry.quant}@v2", "smollm2:360m"]


def test_the_wheels_model_has_its_short_name(
    models: Path, monkeypatch: pytest.MonkeyPatch, entry: catalog.CatalogEntry
) -> None:
    path = write_llama(models / Path(entry.file).name)
    assert names() == [path.stem]
    sized = catalog.replace(entry, n_bytes=path.stat().st_size)
    monkeypatch.setattr("llamalite.models.store.installed.CATALOG", (sized,))
    assert names() == [entry.name]


def test_quantizations_that_are_not_the_only_ones_are_named_by_file(
    cache: Path, content: Callable[..., bytes]
) -> None:
    add_snapshot(cache, REPO, {"a/T-Q4_0.gguf": content("a"), "b/T-Q4_0.gguf": content("b")})
    assert names() == [f"{REPO}/a/T-Q4_0.gguf", f"{REPO}/b/T-Q4_0.gguf"]
    with pytest.raises(AmbiguousFile, match=r"a/T-Q4_0.gguf, .*b/T-Q4_0.gguf"):
        find_installed(f"{REPO}:q4_0")


def test_revisions(cache: Path, content: Callable[..., bytes]) -> None:
    old, new = {"T-Q4_0.gguf": content("old")}, {"T-Q4_0.gguf": content("new")}
    commit = add_snapshot(cache, REPO, old).name
    add_snapshot(cache, REPO, new, refs=["main", "v2"])
    assert set(names()) == {f"{REPO}:Q4_0", f"{REPO}:Q4_0@{commit}"}  # an update left the old one
    add_snapshot(cache, REPO, old, refs=["refs/pr/1"])
    assert set(names()) == {f"{REPO}:Q4_0", f"{REPO}:Q4_0@refs/pr/1"}
    # The same bytes under another revision that has a name are a name of their own, else none.
    add_snapshot(cache, REPO, new, refs=["v3"], commit="3" * 40)
    add_snapshot(cache, REPO, new, refs=[], commit="4" * 40)
    assert set(names()) == {f"{REPO}:Q4_0", f"{REPO}:Q4_0@refs/pr/1", f"{REPO}:Q4_0@v3"}


def test_parts_are_one_model_and_missing_ones_none(models: Path, cache: Path) -> None:
    for number in range(2):
        with GGUFWriter(models / f"big-{number + 1:05}-of-00002.gguf") as writer:
            writer.add("general.architecture", "llama")
            writer.add("split.no", number)
            writer.add("split.count", 2)
    model = only()
    assert (model.name, len(model.paths)) == ("big", 2)
    assert model.n_bytes == sum(path.stat().st_size for path in model.paths)
    assert find_at(model.paths[1], [model]) == model
    model.paths[1].unlink()
    said: list[str] = []
    assert installed_models(say=said.append) == []
    assert len(said) == 1
    assert "1 of its 2 parts" in said[0]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "pointer"])
def test_what_is_no_whole_model_is_left_out_and_said(
    models: Path, cache: Path, content: Callable[..., bytes], damage: str
) -> None:
    whole = content()
    left = {
        "cut": whole[: len(whole) // 2],
        "flipped": b"GGUX" + whole[4:],
        "empty": b"",
        "pointer": b"version https://git-lfs.github.com/spec/v1\n",
    }[damage]
    (models / "a.gguf").write_bytes(left)
    add_snapshot(cache, REPO, {"T-Q4_0.gguf": left})
    said: list[str] = []
    assert installed_models(say=said.append) == []
    assert len(said) == 2
    assert all("left out" in line for line in said)


def test_links(models: Path, cache: Path, tmp_path: Path, content: Callable[..., bytes]) -> None:
    elsewhere = write_llama(tmp_path / "elsewhere.gguf")
    (models / "linked.gguf").symlink_to(elsewhere)
    (models / "dangling.gguf").symlink_to(tmp_path / "nothing")
    (models / "above").symlink_to(models.parent, target_is_directory=True)
    snapshot = add_snapshot(cache, REPO, {"T-Q4_0.gguf": content()})
    (snapshot / "T-Q4_0.gguf").resolve().unlink()
    said: list[str] = []
    assert names(say=said.append) == ["linked"]
    assert len(said) == 2
    assert all("leads nowhere" in line for line in said)
    elsewhere.unlink()
    assert names() == []


def test_downloads_under_way_are_not_seen(models: Path, cache: Path) -> None:
    for folder in (".partial", ".import-x"):
        (models / folder).mkdir()
        write_llama(models / folder / "a.gguf")
    blobs = cache / "models--owner--Tiny-GGUF" / "blobs"
    blobs.mkdir(parents=True)
    write_llama(blobs / ("0" * 64 + ".incomplete"))
    assert names() == []


def test_projectors_go_with_models_and_are_none(
    models: Path, cache: Path, content: Callable[..., bytes]
) -> None:
    files = {"T-Q4_0.gguf": content("a"), "mmproj-F16.gguf": content("p", **{"general.type": "x"})}
    add_snapshot(cache, REPO, files)
    (models / "one-Q4_0.gguf").write_bytes(content("b"))
    (models / "two.gguf").write_bytes(content("c"))
    (models / "one-mmproj.gguf").write_bytes(content("d"))
    (models / "mmproj-F16.gguf").write_bytes(content("e"))
    (models / "odd.gguf").write_bytes(content("f", **{"general.type": "mmproj"}))
    (models / "lora.gguf").write_bytes(content("g", **{"general.type": "adapter"}))
    found = {model.name: model.projector and model.projector.name for model in installed_models()}
    assert found == {
        f"{REPO}:Q4_0": "mmproj-F16.gguf",
        "one-Q4_0": "one-mmproj.gguf",
        "two": None,
    }


def test_models_of_one_name_are_told_apart(models: Path) -> None:
    for folder in ("a", "b"):
        (models / folder).mkdir()
        write_llama(models / folder / "Tiny.gguf")
    assert names() == ["a/Tiny.gguf", "b/Tiny.gguf"]
    found = find_installed("b/tiny.gguf")
    assert found is not None
    assert found.path.parent.name == "b"


def test_a_header_is_read_once_and_again_when_the_file_changes(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_llama(models / "a.gguf")
    n_params = only().n_params
    monkeypatch.setattr("llamalite.models.store.headers._read", None)  # no more to be called
    assert only().n_params == n_params
    monkeypatch.undo()
    monkeypatch.setenv("LLAMALITE_HOME", str(models.parent))
    write_llama(path, **{"llama.context_length": 77})
    os.utime(path, ns=(1, 1))
    assert only().n_ctx_train == 77
    record = read_record(path)
    assert record is not None
    assert record.header is not None
    update_record(path, header={**record.header, "n_bytes": "x"})
    assert only().n_ctx_train == 77


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions are POSIX's")
def test_a_home_that_can_not_be_written_lists_all_the_same(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_llama(models / "a.gguf")
    (models.parent / "records").write_text("a file in the way")
    assert names() == ["a"]


def test_finding(models: Path, cache: Path, content: Callable[..., bytes]) -> None:
    add_snapshot(cache, REPO, {"T-Q4_0.gguf": content("a"), "T-Q8_0.gguf": content("b")})
    (models / "other.gguf").write_bytes(content("c"))
    (models / "other-two.gguf").write_bytes(content("d"))
    for spelled, name in {
        f"{REPO}:q4_0": f"{REPO}:Q4_0",
        f"hf:{REPO}:Q4_0": f"{REPO}:Q4_0",
        f"{REPO}/T-Q8_0.gguf@main": f"{REPO}:Q8_0",
        "tiny-gguf:Q8_0": f"{REPO}:Q8_0",
        "T-Q8": f"{REPO}:Q8_0",
        "OTHER": "other",
        "other.gguf": "other",
        "other-": "other-two",
    }.items():
        found = find_installed(spelled)
        assert found is not None, spelled
        assert found.name == name
    for spelled in ("ot", "owner", "tiny"):
        with pytest.raises(AmbiguousFile, match="means any of"):
            find_installed(spelled)
    for spelled in ("", "nothing", "Q4_0", "../other"):
        assert find_installed(spelled) is None


def test_names_that_were_given(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_llama(models / "a.gguf")
    write_named("one", ModelConfig(model="a"), replace=False)
    write_named("two", ModelConfig(model="ONE"), replace=False)
    write_named("three", ModelConfig(model=str(path)), replace=False)
    write_named("four", ModelConfig(model="nothing"), replace=False)
    write_named("round", ModelConfig(model="about"), replace=False)
    write_named("about", ModelConfig(model="round"), replace=False)
    (config.home() / "config.toml").write_text('[aliases]\nfive = "two"\n')
    model = only()
    assert set(model.names) == {"one", "two", "three", "five"}
    assert stands_for("two", all_named(), [model]) == model
    update_record(path, removed=True)
    assert only().name in model.names
    assert only().is_unnamed
    for file in (config.home() / "names").glob("*.json"):
        file.unlink()
    (config.home() / "config.toml").unlink()
    assert (only().name, only().is_unnamed) == ("a", False)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text there")
def test_a_file_name_that_is_no_utf_8(models: Path) -> None:
    path = models / os.fsdecode(b"m\xff.gguf")
    write_llama(path)
    assert [(model.name, model.path) for model in installed_models()] == [("m\\udcff", path)]
    assert find_installed("M\\udcff") == find_installed("m\udcff") == only()
    assert [record.path for record in all_records().values()] == [str(path)]


def test_loops_and_what_can_not_be_read_spoil_no_list(
    models: Path, cache: Path, content: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_llama(models / "a.gguf")
    add_snapshot(cache, REPO, {"T-Q4_0.gguf": content()})
    (models / "real").mkdir()
    write_llama(models / "real" / "b.gguf")
    for folder in (models, models / "real"):
        (folder / "also").symlink_to(models / "real")  # would be walked again and again
        (folder / "round").symlink_to("round")
    (models / "home").symlink_to(models.parent)
    write_llama(models.parent / "above.gguf")
    (cache / "models--o--round").symlink_to("models--o--round")
    (models / "locked").mkdir()
    scandir = os.scandir

    def refuse(folder: str) -> object:
        if os.fspath(folder).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr("llamalite.models.store.snapshots.os.scandir", refuse)
    said: list[str] = []
    assert names(say=said.append) == ["a", "b", f"{REPO}:Q4_0"]
    assert {model.path for model in installed_models()} > {models / "real" / "b.gguf"}
    assert f"{models / 'locked'} is left out: it can't be read (Permission denied)" in said
    assert len(said) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes have names there")
def test_pipes_and_devices_are_no_models(models: Path, cache: Path) -> None:
    os.mkfifo(models / "pipe.gguf")
    (models / "null.gguf").symlink_to(os.devnull)
    (models / "folder.gguf").mkdir()
    snapshot = add_snapshot(cache, REPO, {"T-Q4_0.gguf": b"GGUF"})
    for folder in (snapshot.parents[1] / "blobs", snapshot.parents[1] / "refs"):
        os.mkfifo(folder / "pipe")
    (models.parent / "records").mkdir()
    os.mkfifo(models.parent / "records" / "x.json")
    said: list[str] = []
    assert names(say=said.append) == []
    assert sum("no regular file" in line for line in said) == 2
    assert list(verify_models([], said.append)) == []
    assert [left.path.name for left in find_leftovers()] == ["pipe"]  # in blobs


def test_a_folder_for_models_that_is_a_file(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (models / "file").write_text("")
    monkeypatch.setenv("LLAMALITE_MODELS_DIR", str(models / "file"))
    said: list[str] = []
    assert names(say=said.append) == []
    assert said == [f"{models / 'file'} is left out: it can't be read (Not a directory)"]
