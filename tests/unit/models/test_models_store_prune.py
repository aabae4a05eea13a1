"""Files against their digests, and what is left behind."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir
from huggingface_hub.utils import WeakFileLock
from support.gguf_models import write_llama
from support.hub_cache import add_snapshot

from llamalite.errors import ModelNotFound
from llamalite.libs.transfer.expected import Expected
from llamalite.models import url
from llamalite.models.hub.cache import PARTIAL_SUFFIX, file_lock
from llamalite.models.pull import wheel
from llamalite.models.store import prune, verify
from llamalite.models.store.importing import STAGING, import_model
from llamalite.models.store.in_use import hold
from llamalite.models.store.installed import installed_models
from llamalite.models.store.prune import find_leftovers, remove_leftovers
from llamalite.models.store.records import all_records, records_folder, update_record
from llamalite.models.store.verify import verify_models

REPO = "owner/Tiny-GGUF"


def states(*names: str) -> dict[str, str]:
    return {v.path.name: v.state for v in verify_models(names, print)}


def flip(path: Path, at: int = -1) -> None:
    whole = bytearray(path.read_bytes())
    whole[at] ^= 1
    path.write_bytes(whole)


def test_digests_of_imports(tmp_path: Path, models: Path) -> None:
    import_model(write_llama(tmp_path / "a.gguf"), "one")
    write_llama(models / "b.gguf")
    assert states() == {"a.gguf": "right", "b.gguf": "unknown"}
    assert states("b") == {"b.gguf": "right"}  # remembered
    flip(models / "a.gguf")
    flip(models / "b.gguf")
    assert states("ONE", "b") == {"a.gguf": "wrong", "b.gguf": "wrong"}
    assert states() == {"a.gguf": "wrong", "b.gguf": "wrong"}
    with pytest.raises(ModelNotFound):
        states("a", "nothing")


def test_digests_in_the_hubs_cache(cache: Path, content: Callable[[str], bytes]) -> None:
    whole = content("a")
    snapshot = add_snapshot(cache, REPO, {"T-Q4_0.gguf": whole, "mmproj-F16.gguf": content("p")})
    git_oid = hashlib.sha1(b"blob %d\0" % len(whole) + whole).hexdigest()
    blob = snapshot.parents[1] / "blobs" / git_oid  # a small file that isn't in LFS
    blob.write_bytes(whole)
    (snapshot / "T-Q8_0.gguf").symlink_to(os.path.relpath(blob, snapshot))
    assert set(states().values()) == {"right"}
    assert len(states()) == 3
    flip(blob)
    flip((snapshot / "mmproj-F16.gguf").resolve())
    assert states("tiny-gguf:Q8_0") == {"T-Q8_0.gguf": "wrong", "mmproj-F16.gguf": "wrong"}
    assert states()["T-Q4_0.gguf"] == "right"


def test_a_file_too_damaged_to_be_listed_is_found_by_its_digest(
    cache: Path, models: Path, content: Callable[[str], bytes]
) -> None:
    snapshot = add_snapshot(cache, REPO, {"T-Q4_0.gguf": content("a")})
    flip((snapshot / "T-Q4_0.gguf").resolve(), 0)
    (models / "text.gguf").write_text("of which nobody knows the digest")
    assert installed_models() == []
    assert states() == {"T-Q4_0.gguf": "wrong"}


def test_nothing_is_left_behind(models: Path, cache: Path, content: Callable[[str], bytes]) -> None:
    assert find_leftovers() == []
    write_llama(models / "a.gguf")
    add_snapshot(cache, REPO, {"T-Q4_0.gguf": content("a"), ".gitattributes": b"*", ".x/y": b"y"})
    installed_models()
    assert find_leftovers() == []


def test_leftovers_in_the_cache(cache: Path, content: Callable[[str], bytes]) -> None:
    snapshot = add_snapshot(cache, REPO, {"T-Q4_0.gguf": content("a"), "T-Q8_0.gguf": content("b")})
    blobs = snapshot.parents[1] / "blobs"
    (snapshot / "T-Q8_0.gguf").resolve().unlink()
    for name in ("e" * 64, "f" * 64 + ".incomplete", "f" * 64 + ".1234abcd.incomplete"):
        (blobs / name).write_bytes(bytes(7))
    (blobs / ("d" * 64 + PARTIAL_SUFFIX)).write_bytes(bytes(9))
    other = add_snapshot(cache, "owner/Whisper", {"model.safetensors": b"x"})
    (other.parents[1] / "blobs" / ("c" * 64)).write_bytes(b"not GGUF: none of ours")
    found = find_leftovers()
    assert sorted((left.path.name[:1], left.what, left.n_bytes) for left in found) == [
        ("T", prune.DANGLING, 0),
        ("d", prune.PARTIAL, 9),
        ("e", prune.BLOB, 7),
        ("f", prune.PARTIAL, 7),
        ("f", prune.PARTIAL, 7),
    ]
    assert remove_leftovers(found, print) == found
    assert find_leftovers() == []
    assert [model.name for model in installed_models()] == [f"{REPO}:Q4_0"]
    assert not scan_cache_dir(cache).warnings
    assert len(list((other.parents[1] / "blobs").iterdir())) == 2


def test_a_repository_of_which_only_a_partial_model_is_here(cache: Path) -> None:
    blobs = cache / "models--owner--Tiny-GGUF" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / ("a" * 64 + ".incomplete")).write_bytes(b"GGUF and no more")
    assert len(remove_leftovers(find_leftovers(), print)) == 1
    assert not blobs.parent.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="locks are files of their own there")
def test_what_a_program_works_on_stays(models: Path, cache: Path) -> None:
    blobs = cache / "models--owner--Tiny-GGUF" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / ("a" * 64 + ".1234abcd.incomplete")).write_bytes(b"GGUF and no more")
    partial = models / url.PARTIAL_FOLDER
    partial.mkdir()
    (partial / "h%2Fm.gguf.part").write_bytes(b"GGUF")
    (models / f"{STAGING}x").mkdir()
    lock = cache / ".locks" / blobs.parent.name / ("a" * 64 + ".lock")
    lock.parent.mkdir(parents=True)
    found = find_leftovers()
    assert len(found) == 3
    said: list[str] = []
    with (
        WeakFileLock(lock),
        file_lock(partial / "h%2Fm.gguf.lock", lambda: None),
        hold([models / f"{STAGING}x"]),
    ):
        assert find_leftovers() == []
        gone = remove_leftovers([left for left in found if left.what == prune.PARTIAL], said.append)
    assert (gone, len(said)) == ([], 2)
    assert remove_leftovers(found, print) == found


def test_leftovers_in_the_folder_for_models(models: Path, tmp_path: Path) -> None:
    partial = models / url.PARTIAL_FOLDER
    partial.mkdir()
    (partial / "h%2Fm.gguf.part").write_bytes(b"GGUF")
    (partial / "h%2Fm.gguf.json").write_text("{}")
    (models / "dangling.gguf").symlink_to(tmp_path / "nothing")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "theirs.gguf").symlink_to(tmp_path / "nothing")
    (models / "sub").symlink_to(outside, target_is_directory=True)
    for name in (f"{wheel.FETCHING}old", f"{wheel.FETCHING}new"):
        (models / name).mkdir()
    os.utime(models / f"{wheel.FETCHING}old", (1, 1))
    found = find_leftovers()
    assert {(left.path.name, left.what) for left in found} == {
        ("h%2Fm.gguf.part", prune.PARTIAL),
        ("dangling.gguf", prune.DANGLING),
        (f"{wheel.FETCHING}old", prune.UNDONE),
    }
    assert remove_leftovers(found, print) == found
    left = {path.name for path in models.iterdir()}
    assert left == {url.PARTIAL_FOLDER, "sub", f"{wheel.FETCHING}new"}
    assert not list(partial.glob("*.json"))
    assert (outside / "theirs.gguf").is_symlink()


def test_damaged_records_go_and_others_stay(models: Path) -> None:
    path = write_llama(models / "a.gguf")
    update_record(path, source="url")
    (sound,) = records_folder().glob("*.json")
    moved = sound.with_name("0" * 32 + ".json")
    moved.write_bytes(sound.read_bytes().replace(b"a.gguf", b"b.gguf"))
    broken = sound.with_name("1" * 32 + ".json")
    broken.write_text("{")
    (records_folder() / "notes.json").write_text("no record at all")
    found = find_leftovers()
    assert {(left.path, left.what) for left in found} == {
        (moved, prune.DAMAGED),
        (broken, prune.DAMAGED),
    }
    broken.write_bytes(sound.read_bytes())  # still not its place
    assert remove_leftovers(found, print) == found
    assert (sound.exists(), len(list(records_folder().glob("*.json")))) == (True, 2)


def test_a_blob_that_a_link_leads_to_stays(models: Path, cache: Path) -> None:
    snapshot = add_snapshot(cache, REPO, {"T-Q4_0.gguf": write_llama(models / "a").read_bytes()})
    blob = (snapshot / "T-Q4_0.gguf").resolve()
    (models / "linked.gguf").symlink_to(blob)
    (snapshot / "T-Q4_0.gguf").unlink()
    assert find_leftovers() == []
    (models / "linked.gguf").unlink()
    assert [left.path for left in find_leftovers()] == [blob]


def test_where_revisions_can_not_be_read_no_blob_is_a_leftover(
    cache: Path, content: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = add_snapshot(cache, REPO, {"T-Q4_0.gguf": content("a"), "T-Q8_0.gguf": content("b")})
    scandir = os.scandir

    def refuse(folder: str) -> object:
        if os.fspath(folder).endswith(snapshot.name):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(folder))
        return scandir(folder)

    monkeypatch.setattr("llamalite.models.store.snapshots.os.scandir", refuse)
    said: list[str] = []
    assert find_leftovers(said.append) == []
    assert "Permission denied" in said[0]


def test_what_can_not_be_read_stops_no_check_of_the_others(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        write_llama(models / f"{name}.gguf")
    installed_models()  # reads the headers
    digest = verify.file_digest

    def fail(path: Path, expected: Expected) -> str:
        if path.name == "b.gguf":
            raise OSError(errno.EIO, "Input/output error")
        return digest(path, expected)

    monkeypatch.setattr(verify, "file_digest", fail)
    (models.parent / "records").rename(models.parent / "old")
    (models.parent / "records").write_text("a file in the way")
    said: list[str] = []
    found = {v.path.name: (v.state, v.why) for v in verify_models([], said.append)}
    assert found["b.gguf"] == ("unreadable", "Input/output error")
    assert found["a.gguf"] == found["c.gguf"] == ("unknown", "")
    assert len([line for line in said if "is not remembered" in line]) == 2


def test_records_of_files_that_are_gone(models: Path) -> None:
    path = write_llama(models / "a.gguf")
    update_record(path, source="url")
    update_record(models / "gone.gguf", source="url")
    (records_folder() / "x.json.tmp").write_text("{")
    found = find_leftovers()
    assert {left.what for left in found} == {prune.RECORD, prune.UNWRITTEN}
    write_llama(models / "gone.gguf")  # it has come back
    said: list[str] = []
    assert [left.what for left in remove_leftovers(found, said.append)] == [prune.UNWRITTEN]
    assert len(said) == 1
    assert len(all_records()) == 2
