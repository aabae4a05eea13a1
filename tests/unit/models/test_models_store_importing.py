"""How models come into the store from the disk, and how they get second names."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from support.gguf_models import write_llama
from support.hub_cache import add_snapshot

from llamalite.errors import BadField, GGUFError, InvalidParameter, ModelError, ModelNotFound
from llamalite.gguf import GGUFWriter
from llamalite.models.names.catalog import CATALOG
from llamalite.models.store import importing
from llamalite.models.store.copying import copy_model
from llamalite.models.store.importing import STAGING, import_model
from llamalite.models.store.installed import find_installed, installed_models
from llamalite.models.store.named import all_named, read_named
from llamalite.models.store.prune import find_leftovers, remove_leftovers
from llamalite.models.store.records import read_record
from llamalite.models.store.removal import remove


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "home" / "models"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return write_llama(tmp_path / "source" / "Tiny-Q4_0.gguf")


def write_parts(folder: Path, count: int = 2) -> list[Path]:
    paths = [folder / f"big-{n + 1:05}-of-{count:05}.gguf" for n in range(count)]
    for number, path in enumerate(paths):
        with GGUFWriter(path) as writer:
            writer.add("general.architecture", "llama")
            writer.add("split.no", number)
            writer.add("split.count", count)
    return paths


def test_a_copy(models: Path, source: Path) -> None:
    model = import_model(source, "tiny")
    assert (model.name, model.source, model.origin) == ("Tiny-Q4_0", "import", str(source))
    assert model.paths == (models / source.name,)
    assert not model.path.is_symlink()
    assert model.path.read_bytes() == source.read_bytes()
    assert model.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    record = read_record(model.path)
    assert record is not None
    assert record.added_at
    preset = read_named("tiny")
    assert preset is not None
    assert preset.model == "Tiny-Q4_0"
    assert source.exists()
    assert {path.name for path in models.iterdir()} == {source.name, ".lock"}


def test_a_link(models: Path, source: Path) -> None:
    model = import_model(source, mode="link")
    assert (model.source, model.sha256) == ("link", None)
    assert os.readlink(models / source.name) == str(source)
    remove([model.name])
    assert source.exists()


def test_any_part_brings_all_and_a_missing_one_is_named(tmp_path: Path, models: Path) -> None:
    parts = write_parts(tmp_path)
    model = import_model(parts[1])
    assert [path.name for path in model.paths] == [path.name for path in parts]
    remove([model.name])
    parts[0].unlink()
    with pytest.raises(ModelNotFound, match=r"big-00001-of-00002\.gguf is not beside it"):
        import_model(parts[1])
    assert not list(models.glob("*.gguf"))


@pytest.mark.parametrize("name", ["mmproj-F16.gguf", "mmproj-Tiny-F16.gguf"])
def test_the_projector_comes_along(source: Path, name: str) -> None:
    write_llama(source.with_name(name), **{"general.type": "mmproj"})
    said: list[str] = []
    model = import_model(source, say=said.append)
    assert model.projector is not None
    assert name in said[0]
    write_llama(source.with_name("Other-Q4_0.gguf"))
    other = import_model(source.with_name("Other-Q4_0.gguf"))
    assert other.projector is None
    assert [m.name for m in installed_models()] == ["Other-Q4_0", "Tiny-Q4_0"]


def test_the_same_file_again_changes_nothing(models: Path, source: Path) -> None:
    first = import_model(source)
    said: list[str] = []
    again = import_model(source, say=said.append)
    assert (again, len(said)) == (first, 1)
    assert "same file" in said[0]
    assert import_model(models / source.name, "tiny").names == ()
    assert list(all_named()) == ["tiny"]
    record = read_record(first.path)
    assert record is not None
    assert record.source == "import"


def test_another_models_place_is_not_taken(models: Path, source: Path) -> None:
    before = import_model(source).path.read_bytes()
    write_llama(source, **{"general.name": "Other"})
    for mode in ("copy", "link"):
        with pytest.raises(ModelError, match="another model's file"):
            import_model(source, mode=mode)  # type: ignore[arg-type]
    assert (models / source.name).read_bytes() == before
    (models / source.name).unlink()
    (models / source.name).symlink_to(models / "nothing")
    with pytest.raises(ModelError, match="another model's file"):
        import_model(source)


def test_a_model_of_the_hubs_cache_is_not_copied(tmp_path: Path, source: Path) -> None:
    snapshot = add_snapshot(tmp_path / "hub", "o/r-GGUF", {"T-Q4_0.gguf": source.read_bytes()})
    model = import_model(snapshot / "T-Q4_0.gguf", "tiny")
    assert model.name == "o/r-GGUF:Q4_0"
    found = find_installed("o/r-GGUF:Q4_0")
    assert found is not None
    assert found.names == ("tiny",)


@pytest.mark.parametrize("name", ["../tiny", "a/b", "", "Tiny-Q4_0.gguf", "con"])
def test_a_bad_alias_is_refused_before_anything_is_copied(
    models: Path, source: Path, name: str
) -> None:
    with pytest.raises(InvalidParameter):
        import_model(source, name)
    assert not models.exists()


@pytest.mark.parametrize("alias", ["Tiny-Q4_0", "tiny-q4_0"])
def test_an_alias_that_is_the_models_own_name_is_refused(
    models: Path, source: Path, alias: str
) -> None:
    with pytest.raises(InvalidParameter, match="is what the model is called anyway"):
        import_model(source, alias)
    assert not models.exists()
    import_model(source)
    with pytest.raises(InvalidParameter):
        import_model(models / source.name, alias)


def test_an_alias_that_the_catalog_gives_the_model_is_refused(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = replace(CATALOG[0], file=source.name, n_bytes=source.stat().st_size)
    monkeypatch.setattr("llamalite.models.store.installed.CATALOG", (entry,))
    with pytest.raises(InvalidParameter, match="is what the model is called anyway"):
        import_model(source, entry.name)
    assert import_model(source).name == entry.name


def test_names_that_are_no_models_in_the_folder_get_one_that_is(
    tmp_path: Path, models: Path, source: Path
) -> None:
    blob = source.rename(source.with_name("sha256-0123"))
    assert import_model(blob).path == models / "sha256-0123.gguf"
    hidden = blob.rename(blob.with_name(".hid.gguf"))
    with pytest.raises(InvalidParameter, match="has a hidden part"):
        import_model(hidden)
    assert [path.name for path in models.glob("*.gguf")] == ["sha256-0123.gguf"]


@pytest.mark.parametrize("path", ["x" * 300, "x\0y", "~\0", "/", "", "x" * 300 + ".gguf"])
def test_what_can_be_no_path_is_not_found(path: str) -> None:
    with pytest.raises(ModelNotFound, match="can't be imported") as caught:
        import_model(path)
    assert len(str(caught.value)) < 400


def test_what_is_no_model_is_refused(tmp_path: Path, models: Path, source: Path) -> None:
    def refused(error: type[Exception], why: str, path: Path) -> None:
        with pytest.raises(error, match=why):
            import_model(path)
        assert not models.exists()

    refused(ModelNotFound, "no file there", tmp_path / "nothing.gguf")
    refused(ModelNotFound, "a folder", tmp_path)
    (tmp_path / "text.gguf").write_text("no model")
    refused(GGUFError, "no GGUF file", tmp_path / "text.gguf")
    (tmp_path / "cut.gguf").write_bytes(source.read_bytes()[:-50])
    refused(GGUFError, "past the end", tmp_path / "cut.gguf")
    lora = write_llama(tmp_path / "lora.gguf", **{"general.type": "adapter"})
    refused(BadField, "adapter", lora)
    refused(InvalidParameter, "projector", write_llama(tmp_path / "mmproj-x.gguf"))
    if sys.platform != "win32":
        refused(InvalidParameter, "backslash", write_llama(tmp_path / "a\\b.gguf"))


def test_a_full_disk_is_said_before_and_while_it_fills(
    models: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: usage(1, 1, 1))
        with pytest.raises(ModelError, match=r"1 bytes free and 2\.3 kB are needed"):
            import_model(source)

    def fail(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("llamalite.models.store.digests.os.fsync", fail)
    with pytest.raises(ModelError, match="No space left on device"):
        import_model(source)
    assert list(models.iterdir()) == []


KILLED = """
import os, signal, sys
from llamalite.models.store import importing
importing.os.rename = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
importing.import_model(sys.argv[1])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
def test_killed_before_the_rename_nothing_is_listed_and_prune_clears_up(
    models: Path, source: Path
) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(source)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert installed_models() == []
    (left,) = find_leftovers()
    assert left.path.name.startswith(STAGING)
    assert left.n_bytes == source.stat().st_size
    assert remove_leftovers([left], print) == [left]
    assert import_model(source).name == "Tiny-Q4_0"


def test_a_second_name_shares_the_bytes(models: Path, source: Path) -> None:
    first = import_model(source)
    assert copy_model("tiny", "second") == "second shares the file of Tiny-Q4_0"
    second = find_installed("second")
    assert second is not None
    assert os.path.samefile(first.path, second.path)
    assert (second.sha256, second.origin) == (first.sha256, first.origin)
    for new in ("second", "SECOND", "Tiny-Q4_0"):
        with pytest.raises(InvalidParameter, match="choose another"):
            copy_model("tiny", new)
    with pytest.raises(ModelNotFound):
        copy_model("nothing", "third")


def test_a_second_name_of_parts_and_projector(tmp_path: Path, models: Path) -> None:
    parts = write_parts(tmp_path)
    write_llama(tmp_path / "mmproj-big.gguf")
    import_model(parts[0])
    copy_model("big", "two")
    model = find_installed("two")
    assert model is not None
    assert [path.name for path in model.paths] == [
        "two-00001-of-00002.gguf",
        "two-00002-of-00002.gguf",
    ]
    assert model.projector == models / "two-mmproj.gguf"


def test_a_second_name_of_an_alias_is_a_copy_of_it(source: Path) -> None:
    import_model(source, "tiny")
    assert copy_model("TINY", "other") == "other is a copy of TINY"
    assert read_named("other") == read_named("tiny")
    remove(["tiny"])
    assert list(all_named()) == ["other"]


@pytest.mark.parametrize("new", ["../x", "a/b", "", "x:y", "nul", "-x", "x.gguf"])
def test_bad_second_names_are_refused(models: Path, source: Path, new: str) -> None:
    import_model(source)
    before = sorted(models.rglob("*"))
    with pytest.raises(InvalidParameter):
        copy_model("tiny", new)
    assert sorted(models.rglob("*")) == before


def test_where_links_can_not_be_made_the_second_name_is_an_alias(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_model(source)

    def fail(*names: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr("llamalite.models.store.copying.os.link", fail)
    assert "is an alias of Tiny-Q4_0, because" in copy_model("tiny", "second")
    assert find_installed("tiny").names == ("second",)  # type: ignore[union-attr]


def test_a_link_that_can_not_be_made_names_the_way_out(
    models: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*names: object) -> None:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr("llamalite.models.store.importing.os.symlink", fail)
    with pytest.raises(ModelError, match="import it with --copy"):
        import_model(source, mode="link")
    assert not list(models.glob("*.gguf"))


def test_a_quicker_import_of_the_same_file_is_no_conflict(
    models: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, calls = importing._check_vacant, list[int]()

    def late(targets: Iterable[Path]) -> None:
        calls.append(1)
        if len(calls) == 2:  # while this one copied
            (models / source.name).write_bytes(source.read_bytes())
        check(targets)

    monkeypatch.setattr(importing, "_check_vacant", late)
    said: list[str] = []
    assert import_model(source, say=said.append).name == "Tiny-Q4_0"
    assert "same file" in said[0]
    assert {path.name for path in models.iterdir()} == {source.name, ".lock"}


def test_four_imports_at_once_make_one_model(models: Path, source: Path) -> None:
    code = (
        "import sys; from llamalite.models.store.importing import import_model as i; i(sys.argv[1])"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, str(source)]) for _ in range(4)]
    assert [run.wait(60) for run in runs] == [0] * 4
    assert [model.name for model in installed_models()] == ["Tiny-Q4_0"]
    assert {path.name for path in models.iterdir()} == {source.name, ".lock"}
