"""What goes when a name goes, and what stays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir
from support.gguf_models import write_llama
from support.hub_cache import add_snapshot

from llamalite import config
from llamalite.config import ModelConfig
from llamalite.errors import AmbiguousFile, InvalidParameter, ModelError, ModelNotFound
from llamalite.models.store import installed
from llamalite.models.store.copying import copy_model
from llamalite.models.store.in_use import hold, is_held
from llamalite.models.store.installed import installed_models
from llamalite.models.store.named import all_named, is_taken, names_folder, write_named
from llamalite.models.store.records import all_records, update_record
from llamalite.models.store.removal import Removal, carry_out, plan_removal, remove, remove_aliases
from llamalite.models.store.unlinking import unlink_file

REPO = "owner/Tiny-GGUF"
NAME = f"{REPO}:Q4_0"


def names() -> list[str]:
    return [model.name for model in installed_models()]


def alias(name: str, model: str) -> None:
    write_named(name, ModelConfig(model=model), replace=False)


def test_a_file_goes_with_its_name_and_its_record(models: Path) -> None:
    path = write_llama(models / "a.gguf")
    write_llama(models / "b.gguf")
    update_record(path, source="url")
    size = path.stat().st_size
    (removal,) = remove(["A"])
    assert (removal.name, removal.files, removal.n_bytes) == ("a", (path,), size)
    assert names() == ["b"]
    assert str(path) not in all_records()


def test_an_alias_goes_alone(models: Path) -> None:
    write_llama(models / "a.gguf")
    alias("one", "a")
    assert remove(["ONE"])[0].files == ()
    assert (names(), all_named()) == (["a"], {})


def test_a_file_stays_until_its_last_name_goes(models: Path) -> None:
    path = write_llama(models / "a.gguf")
    alias("one", "a")
    write_named("two", ModelConfig(model="a", n_ctx=5), replace=False)
    (removal,) = remove(["a"])
    assert removal.files == ()
    assert "one, two stand for it" in removal.note
    assert names() == ["one"]
    assert remove(["one"])[0].files == ()
    assert names() == ["two"]
    assert remove(["two"])[0].files == (path,)
    assert not path.exists()
    assert all_named() == {}


@pytest.mark.parametrize("target", ["smollm2:135m", "smollm2", "hf:owner/tiny-gguf:q4_0", NAME])
def test_the_last_alias_of_a_short_name_or_reference_takes_the_file_along(
    target: str, models: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = write_llama(models.parent / "m").read_bytes()
    snapshot = add_snapshot(cache, REPO, {"tiny-Q4_0.gguf": content})
    own = NAME
    if target.startswith("smollm2"):
        own = "smollm2:135m"
        monkeypatch.setattr(installed, "short_name", lambda *_: own)
    alias("tiny", target)
    alias("tiny2", "tiny")
    assert "stand for it" in remove([own])[0].note
    assert names() == ["tiny"]
    with pytest.raises(
        ModelNotFound, match=r"removed before, .* tiny, tiny2 keep its file: 'llama"
    ):
        remove([own])
    remove(["tiny2"])
    with pytest.raises(ModelNotFound, match=r"only tiny keeps its file: 'llamalite rm tiny' rem"):
        remove([own.upper()])
    assert remove(["tiny"])[0].files == (snapshot / "tiny-Q4_0.gguf",)
    assert names() == []


@pytest.mark.parametrize(
    "name",
    [
        "tinyllama:1.1b",
        "tiny",
        "tinyllama-1.1b-c",
        "o/m:Q4_K",
        "m:Q4_K",
        "o/m:Q4_K_S@v1",
        "o/m/m-Q4",
    ],
)
def test_only_whole_names_and_words_are_removed(name: str, models: Path, cache: Path) -> None:
    content = write_llama(models / "TinyLlama-1.1B.Q8_0.gguf").read_bytes()
    repo, file = "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF", "tinyllama-1.1b-chat-v1.0.Q8_0.gguf"
    add_snapshot(cache, repo, {file: content})
    add_snapshot(cache, "o/m", {"m-Q4_K_S.gguf": content})
    there = names()
    assert there == ["o/m:Q4_K_S", "TinyLlama-1.1B.Q8_0", "tinyllama:1.1b-q8_0"]
    with pytest.raises(ModelNotFound, match="nothing here is called"):
        remove([name])
    assert names() == there
    with pytest.raises(AmbiguousFile, match=r"any of .*TinyLlama-1.1B.Q8_0"):
        remove(["tinyllama"])
    remove(["tinyllama-1.1b-chat"])
    remove(["TinyLlama"])
    remove(["O/M"])
    assert names() == []


def test_all_names_at_once(models: Path) -> None:
    path = write_llama(models / "a.gguf")
    alias("one", "a")
    assert [removal.name for removal in remove(["a", "one", "ONE"])] == ["one", "a"]
    assert not path.exists()


def test_names_alone_can_be_removed(models: Path) -> None:
    path = write_llama(models / "a.gguf")
    alias("one", "a")
    remove(["a"])
    assert remove_aliases(["One"]) == ["one"]
    assert names() == ["a"]
    alias("one", "a")
    assert names() == ["a"]  # its own name is back for good
    assert path.exists()
    with pytest.raises(ModelNotFound):
        remove_aliases(["a"])


def test_what_another_name_stands_for_is_not_removed_before_it(models: Path) -> None:
    write_llama(models / "a.gguf")
    alias("one", "a")
    alias("two", "one")
    with pytest.raises(InvalidParameter, match="'two' stands for 'one'"):
        remove(["one"])
    with pytest.raises(InvalidParameter, match="'two' stands for 'one'"):
        remove_aliases(["one"])
    remove(["one", "two"])
    assert (names(), all_named()) == (["a"], {})


def test_the_configurations_aliases_count_and_are_not_touched(models: Path) -> None:
    path = write_llama(models / "a.gguf")
    file = config.home() / "config.toml"
    file.write_text('[aliases]\nmine = "a"\n')
    with pytest.raises(InvalidParameter, match=r"config unset aliases\.mine"):
        remove(["mine"])
    assert remove(["a"])[0].note == "its file stays, because mine stands for it"
    assert path.exists()
    assert names() == ["mine"]


def test_unknown_and_ambiguous_names_remove_nothing(models: Path) -> None:
    for name in ("a", "b-b", "b-c", "x", "y"):
        write_llama(models / f"{name}.gguf")
    (models / "sub").mkdir()
    write_llama(models / "sub" / "x.gguf")
    with pytest.raises(ModelNotFound, match="nothing here is called 'bbb'"):
        remove(["a", "bbb"])
    with pytest.raises(AmbiguousFile):
        remove(["a", "x"])
    with pytest.raises(AmbiguousFile):
        remove(["a", "b"])
    assert len(names()) == 6


def test_of_a_link_only_the_link_goes(models: Path, tmp_path: Path) -> None:
    source = write_llama(tmp_path / "source.gguf")
    (models / "a.gguf").symlink_to(source)
    (removal,) = remove(["a"])
    assert removal.n_bytes == 0
    assert str(source) in removal.note
    assert source.exists()
    assert names() == []


def test_what_a_link_here_leads_to_is_not_removed_before_it(
    models: Path, cache: Path, content: Callable[[str], bytes]
) -> None:
    write_llama(models / "a.gguf")
    snapshot = add_snapshot(cache, REPO, {"T-Q4_0.gguf": content("b")})
    (models / "b.gguf").symlink_to("a.gguf")
    (models / "c.gguf").symlink_to("b.gguf")
    (models / "snap.gguf").symlink_to(snapshot / "T-Q4_0.gguf")
    for name, link in (("a", "b"), ("b", "c"), (NAME, "snap")):
        with pytest.raises(InvalidParameter, match=f"'{link}' is a link to the file of '{name}'"):
            remove([name])
    (models / "snap.gguf").unlink()
    (models / "blob.gguf").symlink_to((snapshot / "T-Q4_0.gguf").resolve())
    with pytest.raises(InvalidParameter, match="'blob' is a link"):
        remove([NAME])
    assert len(names()) == 5
    remove(["c"])
    remove(["a", "b", "blob", NAME])
    assert names() == []


def test_the_cache_as_folder_for_models_lists_each_model_once(
    cache: Path, content: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = add_snapshot(cache, REPO, {"T-Q4_0.gguf": content("a")})
    write_llama(cache / "own.gguf")
    for folder in (cache, cache.parent, snapshot):
        monkeypatch.setenv("LLAMALITE_MODELS_DIR", str(folder))
        assert names().count(NAME) == 1
        assert "T-Q4_0" not in names()
    monkeypatch.setenv("LLAMALITE_MODELS_DIR", str(cache))
    assert names() == ["own", NAME]
    assert remove([NAME])[0].note == ""
    assert names() == ["own"]


def test_hard_links_are_removed_one_by_one(models: Path) -> None:
    path = write_llama(models / "a.gguf")
    size = path.stat().st_size
    assert copy_model("a", "b") == "b shares the file of a"
    (first,) = remove(["a"])
    assert (first.n_bytes, first.note) == (0, "b still needs the same file")
    assert names() == ["b"]
    assert remove(["b"])[0].n_bytes == size


def test_a_projector_goes_with_the_last_model_that_has_it(
    cache: Path, content: Callable[[str], bytes]
) -> None:
    files = {
        "T-Q4_0.gguf": content("a"),
        "T-Q8_0.gguf": content("b"),
        "mmproj-F16.gguf": content("c"),
    }
    snapshot = add_snapshot(cache, REPO, files)
    remove([NAME])
    assert {path.name for path in snapshot.iterdir()} == {"T-Q8_0.gguf", "mmproj-F16.gguf"}
    remove([f"{REPO}:Q8_0"])
    assert not snapshot.exists()


def test_a_projector_goes_with_all_models_that_have_it(
    cache: Path, content: Callable[[str], bytes]
) -> None:
    files = {name: content(name) for name in ("T-Q4_0.gguf", "T-Q8_0.gguf", "mmproj-F16.gguf")}
    add_snapshot(cache, REPO, files)
    plan = plan_removal([NAME, f"{REPO}:Q8_0"])
    assert sorted(path.name for removal in plan for path in removal.files) == sorted(files)
    carry_out(plan)
    assert not list(cache.iterdir())


@pytest.mark.parametrize("links", [True, False])
def test_a_model_in_the_hubs_cache(
    cache: Path, content: Callable[[str], bytes], links: bool
) -> None:
    files = {"T-Q4_0.gguf": content("a"), "T-Q8_0.gguf": content("b"), "README.md": b"#"}
    snapshot = add_snapshot(cache, REPO, files, links=links)
    blob = (snapshot / "T-Q4_0.gguf").resolve()
    (removal,) = remove([NAME])
    assert removal.n_bytes == len(files["T-Q4_0.gguf"])
    assert not blob.exists()
    assert names() == [f"{REPO}:Q8_0"]
    remove([f"{REPO}:Q8_0"])
    assert {path.name for path in snapshot.iterdir()} == {"README.md"}
    assert not scan_cache_dir(cache).warnings


def test_an_emptied_repository_goes_and_the_cache_stays_sound(
    cache: Path, content: Callable[[str], bytes]
) -> None:
    add_snapshot(cache, REPO, {"T-Q4_0.gguf": content("a")}, refs=["main", "v1"])
    add_snapshot(cache, "other/Repo", {"x.txt": b"x"})
    remove([NAME])
    assert [path.name for path in cache.iterdir()] == ["models--other--Repo"]
    assert not scan_cache_dir(cache).warnings


def test_revisions_that_share_a_blob(cache: Path, content: Callable[[str], bytes]) -> None:
    files = {"T-Q4_0.gguf": content("a")}
    snapshot = add_snapshot(cache, REPO, files)
    add_snapshot(cache, REPO, files, refs=["v1"], commit="1" * 40)
    add_snapshot(cache, REPO, files, refs=[], commit="2" * 40)  # an update left it
    blob = (snapshot / "T-Q4_0.gguf").resolve()
    (removal,) = remove([NAME])
    assert (removal.n_bytes, removal.note) == (0, f"{NAME}@v1 still needs the same file")
    assert names() == [f"{NAME}@v1"]
    assert blob.exists()
    assert remove([f"{NAME}@v1"])[0].n_bytes == len(files["T-Q4_0.gguf"])
    assert not blob.exists()
    assert not cache.exists() or not list(cache.iterdir())


def test_blobs_in_huggingface_hubs_shared_store(
    cache: Path, content: Callable[[str], bytes]
) -> None:
    shared = pytest.importorskip("huggingface_hub.utils._shared_blobs", reason="an older one")
    digest, whole = "ab" * 32, content("a")
    for repo in (REPO, "other/Tiny-GGUF"):
        snapshot = add_snapshot(cache, repo, {"T-Q4_0.gguf": whole})
        assert shared.publish_blob_to_shared_store(
            blob_path=str(snapshot / os.readlink(snapshot / "T-Q4_0.gguf")),
            xet_hash=digest,
            cache_dir=str(cache),
            expected_size=len(whole),
        )
    entry = cache / "blobs" / "ab" / digest
    assert names() == ["other/Tiny-GGUF:Q4_0", NAME]
    (first,) = remove([NAME])
    assert (first.n_bytes, entry.exists()) == (0, True)
    assert names() == ["other/Tiny-GGUF:Q4_0"]
    assert remove(names())[0].n_bytes == len(whole)
    assert not entry.exists()


HOLDER = """
import sys
from llamalite.models.store.in_use import hold
with hold(sys.argv[1:]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the system itself refuses there")
def test_what_is_loaded_is_refused_until_it_is_closed(
    cache: Path, content: Callable[[str], bytes]
) -> None:
    snapshot = add_snapshot(cache, REPO, {"T-Q4_0.gguf": content("a")})
    path = snapshot / "T-Q4_0.gguf"
    alias("one", NAME)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(ModelError, match="is loaded by a running program"):
        remove([NAME, "one"])
    assert all_named()
    holder.kill()  # however it ends
    holder.wait()
    with hold([path]), hold([path]):
        assert is_held(path)
        with pytest.raises(ModelError, match="is loaded"):
            remove([NAME, "one"])
    assert not is_held(path)
    remove([NAME, "one"])
    assert not path.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="the system itself refuses there")
def test_what_is_loaded_between_question_and_answer_stays(models: Path) -> None:
    paths = [write_llama(models / f"{name}.gguf") for name in "abc"]
    plan = plan_removal(["a", "b", "c"])
    done: list[Removal] = []
    with hold([paths[1]]), pytest.raises(ModelError, match="b is loaded by a running program"):
        carry_out(plan, done.append)
    assert [path.exists() for path in paths] == [False, True, True]
    assert [removal.name for removal in done] == ["a"]


def test_what_can_not_be_held_is_no_error(tmp_path: Path) -> None:
    hold([tmp_path / "nothing", tmp_path]).close()
    assert not is_held(tmp_path / "nothing")


def test_nothing_outside_goes(models: Path, cache: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    kept = write_llama(outside / "a.gguf")
    (models / "sub").symlink_to(outside, target_is_directory=True)
    assert names() == ["a"]
    own = write_llama(models / "own.gguf")
    with pytest.raises(ModelError, match="left alone"):
        remove(["own", "a"])
    assert own.exists()
    with pytest.raises(ModelError, match="left alone"):
        unlink_file(kept)
    with pytest.raises(ModelError, match="left alone"):
        unlink_file(models / ".." / "x")
    folder = cache / "models--owner--Tiny-GGUF" / "snapshots" / ("1" * 40)
    folder.mkdir(parents=True)
    (folder / "T-Q4_0.gguf").symlink_to(kept)
    remove([NAME + "@" + "1" * 40])
    assert kept.exists()


@pytest.mark.parametrize("damage", ["empty", "cut", "parts", "adapter"])
def test_damaged_files_go_by_name_and_by_path(models: Path, damage: str) -> None:
    name = "st-00002-of-00003.gguf" if damage == "parts" else "st.gguf"
    path = write_llama(models / name, **{"general.type": "adapter"})
    if damage in ("empty", "cut"):
        path.write_bytes(path.read_bytes()[: 100 * (damage == "cut")])
    write_llama(models / "st-bigger.gguf")
    assert names() == ["st-bigger"]
    for name in ("ST", str(path), path.name):
        (removal,) = plan_removal([name])
        assert removal.files == (path,)
    remove(["st"])
    assert [path.name for path in models.glob("*.gguf")] == ["st-bigger.gguf"]


def test_damaged_models_of_the_hubs_cache_go_with_their_blobs(cache: Path) -> None:
    snapshot = add_snapshot(cache, REPO, {"T-Q4_0.gguf": b"GGUF"})
    remove([NAME])
    assert not snapshot.parents[1].exists()


def test_a_damaged_name_can_be_removed_and_blocks_no_other(models: Path) -> None:
    write_llama(models / "a.gguf")
    for name in ("bad", "worse", "one"):
        alias(name, "a")
    for name in ("bad", "worse"):
        (names_folder() / f"{name}.json").write_text("{")
    said: list[str] = []
    plan = plan_removal(["one"], said.append)
    assert ([r.name for r in plan], len(said)) == (["one"], 2)
    (removal,) = remove(["Bad"])
    assert (removal.files, removal.note) == ((), "what it stood for can't be read")
    assert not is_taken("bad")
    assert remove_aliases(["one", "worse"]) == ["one", "worse"]
    assert (names(), all_named()) == (["a"], {})


@pytest.mark.skipif(sys.platform != "linux", reason="file names there differ by case")
def test_names_that_differ_by_case_alone(models: Path) -> None:
    paths = [write_llama(models / name) for name in ("Cas.gguf", "cas.GGUF")]
    with pytest.raises(AmbiguousFile):
        remove(["CAS.gguf"])
    assert remove(["Cas.gguf"])[0].files == (paths[0],)
    assert remove(["cas"])[0].files == (paths[1],)


def test_an_alias_that_has_become_ambiguous_keeps_all_it_may_mean(models: Path) -> None:
    path = write_llama(models / "st.gguf")
    alias("fav", "st")
    (models / "sub").mkdir()
    write_llama(models / "sub" / "st.gguf")
    (removal,) = remove(["st.gguf"])
    assert "fav stands for it" in removal.note
    assert path.exists()
