"""Nothing outside the folder for models and the Hub's cache is removed or written, by any link."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
from pathlib import Path

import pytest
from support.gguf_models import write_llama
from support.hub_cache import add_snapshot

import llamalite.models.store
from llamalite import config
from llamalite.errors import LlamaliteError, ModelError
from llamalite.models.store import bounds, prune
from llamalite.models.store.importing import STAGING, import_model
from llamalite.models.store.installed import survey
from llamalite.models.store.records import records_folder, update_record
from llamalite.models.store.removal import remove
from llamalite.models.store.verify import verify_models

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="few may make links there")

GONE = "f" * 40


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "hub").mkdir()
    return tmp_path / "hub"


def state(folder: Path) -> dict[str, object]:
    """Return all that lies below a folder, whatever it is, with modes and times."""
    found: dict[str, object] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        found[str(path)] = (stat.S_IFMT(status.st_mode), status.st_mtime_ns, content)
    return found


def move_out(path: Path, outside: Path) -> Path:
    """Move a folder or a file out and put a link in its place."""
    target = outside / f"{path.parent.name}-{path.name}"
    path.rename(target)
    path.symlink_to(target)
    return target


def link_the_folder_for_models(models: Path, outside: Path) -> None:
    for name in ("sub", "partial", "staging"):
        (outside / name).mkdir()
    far = write_llama(outside / "sub" / "far.gguf")
    (outside / "sub" / "theirs.gguf").symlink_to(outside / "nothing")
    (outside / "sub" / "damaged.gguf").write_bytes(b"GGUF")
    (outside / "partial" / "h%2Fm.gguf.part").write_bytes(b"GGUF")
    (outside / "partial" / "h%2Fm.gguf.json").write_text("{}")
    (outside / "staging" / "diary.txt").write_text("mine")
    os.utime(outside / "staging", (1, 1))
    (models / "sub").symlink_to(outside / "sub")
    (models / ".partial").symlink_to(outside / "partial")
    (models / f"{STAGING}x").symlink_to(outside / "staging")
    (models / f"{prune.FETCHING}x").symlink_to(outside / "staging")
    (models / ".lock").symlink_to(outside / "made-by-a-lock")
    (models / "loop").symlink_to("loop")
    (models / "up").symlink_to(outside.parent)
    (models / "one.gguf").symlink_to(far)
    (models / "two.gguf").symlink_to("one.gguf")
    (models / "nowhere.gguf").symlink_to(outside / "nothing")
    write_llama(models / "own.gguf")


def link_the_cache(cache: Path, outside: Path, content: bytes) -> None:
    def repo(name: str, file: str = "T-Q4_0.gguf") -> Path:
        snapshot = add_snapshot(cache, f"o/{name}", {file: content, "x.txt": b"x"})
        (snapshot.parents[1] / "blobs" / ("e" * 64)).write_bytes(b"GGUF, no one's")
        return snapshot

    move_out(repo("whole").parents[1], outside)
    blobs = move_out(repo("blobs").parents[1] / "blobs", outside)
    (blobs / "diary.txt").write_text("mine")
    (blobs / ("a" * 64 + ".incomplete")).write_bytes(b"GGUF")
    move_out(repo("snapshots").parent, outside)
    refs = move_out(repo("refs").parents[1] / "refs", outside)
    (refs / "gone").write_text(GONE)
    (repo("ref").parents[1] / "refs" / "gone").write_text(GONE)
    move_out(cache / "models--o--ref" / "refs" / "gone", outside)
    move_out(repo("commit"), outside)
    move_out(repo("below", "sub/T-Q4_0.gguf") / "sub", outside)
    target = move_out(repo("file") / "T-Q4_0.gguf", outside)
    target.unlink()
    target.write_bytes(content)
    for blob in (repo("blob").parents[1] / "blobs").iterdir():
        move_out(blob, outside)
    unlocked = repo("unlocked").parents[1]
    (cache / ".locks" / unlocked.name).mkdir(parents=True)
    move_out(cache / ".locks" / unlocked.name, outside)
    lock = cache / ".locks" / "models--o--lock" / f"{'e' * 64}.lock"
    repo("lock")
    lock.parent.mkdir()
    lock.write_text("not empty")
    move_out(lock, outside)
    share(cache, repo("shared"), outside, content)


def share(cache: Path, snapshot: Path, outside: Path, content: bytes) -> None:
    """Let a blob lead into huggingface_hub's shared store, of which a part lies elsewhere."""
    shared = pytest.importorskip("huggingface_hub.utils._shared_blobs", reason="an older one")
    assert shared.publish_blob_to_shared_store(
        blob_path=str(snapshot / os.readlink(snapshot / "T-Q4_0.gguf")),
        xet_hash="ab" * 32,
        cache_dir=str(cache),
        expected_size=len(content),
    )
    move_out(cache / "blobs" / "ab", outside)


def clear_all(said: list[str]) -> None:
    """Remove all there is by its name, and what is left behind, as far as that goes."""
    list(verify_models([], said.append))
    for _ in range(2):
        there = survey()
        for model in [*there.models, *there.damaged]:
            with contextlib.suppress(LlamaliteError):
                remove([model.name])
        prune.remove_leftovers(prune.find_leftovers(said.append), said.append)


def test_no_link_leads_a_removal_out(models: Path, cache: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    content = write_llama(tmp_path / "made.gguf").read_bytes()
    link_the_folder_for_models(models, outside)
    link_the_cache(cache, outside, content)
    before, said = state(outside), list[str]()
    with contextlib.suppress(LlamaliteError):  # the lock leads out
        import_model(tmp_path / "made.gguf")
    clear_all(said)
    assert state(outside) == before
    for name in ("whole", "blobs", "snapshots", "unlocked", ".partial"):
        assert any(name in line and "is left alone" in line for line in said), name
    assert not any("\n" in line for line in said)
    left = {path.name for path in models.iterdir()}
    assert left == {".lock", ".partial", f"{STAGING}x", f"{prune.FETCHING}x", "loop", "sub", "up"}
    # What led nowhere, or out by a link of its own, is gone from the cache.
    assert not list((cache / "models--o--file" / "snapshots").rglob("*.gguf"))
    assert not list((cache / "models--o--blob").rglob("*.gguf"))


@pytest.mark.parametrize("link", ["models", "hub", "home"])
def test_roots_that_are_links_themselves_are_what_they_lead_to(tmp_path: Path, link: str) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").mkdir(exist_ok=True)
    if link == "home":
        (tmp_path / "home").rmdir()
        (tmp_path / "home").symlink_to(tmp_path / "disk")
    else:
        place = tmp_path / "home" / "models" if link == "models" else tmp_path / "hub"
        place.symlink_to(tmp_path / "disk")
    (tmp_path / "home" / "models").mkdir(exist_ok=True)
    whole = write_llama(tmp_path / "home" / "models" / "own.gguf").read_bytes()
    add_snapshot(tmp_path / "hub", "o/r-GGUF", {"T-Q4_0.gguf": whole})
    remove(["own", "o/r-GGUF:Q4_0"])
    assert not list(tmp_path.rglob("*.gguf"))


def test_what_lies_behind_linked_records_is_not_taken_for_leftovers(tmp_path: Path) -> None:
    outside = tmp_path / "documents"
    outside.mkdir()
    config.home().mkdir()
    records_folder().symlink_to(outside)
    update_record(tmp_path / "m.gguf", source="url")
    for name in ("letter.tmp", "letter.json", "0" * 32 + ".json"):
        (outside / name).write_text("mine")
    before, said = state(outside), list[str]()
    found = prune.find_leftovers(said.append)
    prune.remove_leftovers([left for left in found if left.what != prune.RECORD], said.append)
    assert state(outside) == before
    assert "is left alone" in said[0]


def test_neither_locks_nor_unfinished_files_are_written_through_links(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    update_record(tmp_path / "m.gguf", source="url")
    (record,) = records_folder().glob("*.json")
    record.with_name(record.name + ".tmp").symlink_to(victim)
    assert update_record(tmp_path / "m.gguf", source="import").source == "import"
    assert victim.read_text() == "mine"
    (records_folder() / ".lock").unlink()
    (records_folder() / ".lock").symlink_to(tmp_path / "new")
    with pytest.raises(ModelError, match=r"\.lock can't be written"):
        update_record(tmp_path / "m.gguf", source="url")
    assert not (tmp_path / "new").exists()


def test_places(models: Path, cache: Path, tmp_path: Path) -> None:
    (models / "up").symlink_to(tmp_path)
    for path in (models / "a", models / "no" / "such" / "folder", cache / "a", models / "up"):
        assert bounds.is_inside(path), path
    for path in (
        models,
        models / "..",
        models / "." / ".." / "x",
        models / "up" / "x",
        models / "up" / "home" / "models",
        models.with_name("models-too") / "x",
        tmp_path / "x",
        Path("x"),
    ):
        assert not bounds.is_inside(path), path
        with pytest.raises(ModelError, match="left alone"):
            bounds.unlink(path)
    (models / "a").symlink_to("b")
    (models / "b").symlink_to(models / "up" / "c")
    assert list(bounds.way_of(models / "a")) == [models / "a", models / "b", tmp_path / "c"]
    (models / "loop").symlink_to("loop")
    assert set(bounds.way_of(models / "loop")) == {models / "loop"}


def test_nothing_but_the_guard_removes() -> None:
    """What the guard doesn't own are the JSON files that `store` itself names."""
    folder = Path(llamalite.models.store.__file__).parent
    removing = re.compile(r"(?<!bounds)\.(unlink|rmdir|rmtree|remove|removedirs)\(")
    found = {path.name for path in folder.glob("*.py") if removing.search(path.read_text("utf-8"))}
    assert found == {"bounds.py", "atomic.py", "named.py", "records.py"}
