from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llamalite.errors import InvalidParameter
from llamalite.models.hub import cache
from llamalite.models.hub.cache import (
    cache_folder,
    cached_commit,
    cached_files,
    place_blob,
    remember_revision,
    repo_folder,
    snapshot_path,
)

REPO, ONE, TWO = "owner/Tiny-GGUF", "1" * 40, "2" * 40


@pytest.mark.parametrize(
    "set_",
    [
        {},
        {"XDG_CACHE_HOME": "/xdg"},
        {"HF_HOME": "~/hf", "XDG_CACHE_HOME": "/xdg"},
        {"HF_HOME": "$THERE/hf", "THERE": "/there", "HUGGINGFACE_HUB_CACHE": "/old"},
        {"HF_HUB_CACHE": "~/$THERE", "HF_HOME": "/home", "HUGGINGFACE_HUB_CACHE": "/old"},
    ],
)
def test_the_cache_is_where_huggingface_hub_has_it(
    set_: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in set_.items():
        monkeypatch.setenv(name, value)
    program = "from huggingface_hub.constants import HF_HUB_CACHE; print(HF_HUB_CACHE)"
    theirs = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert str(cache_folder()) == theirs.stdout.strip()


def put(path: str, content: bytes, commit: str = ONE, revision: str = "main") -> Path:
    blob = repo_folder(REPO) / "blobs" / content.hex()
    blob.parent.mkdir(parents=True, exist_ok=True)
    fresh = blob.with_name("fresh")
    fresh.write_bytes(content)
    target = snapshot_path(REPO, commit, path)
    place_blob(blob, target, fresh)
    remember_revision(REPO, revision, commit)
    return target


def test_what_is_placed_is_found_by_revision() -> None:
    first = put("a.gguf", b"a")
    put("sub/b.gguf", b"b")
    other = put("a.gguf", b"A", TWO, "refs/pr/1")
    assert first.read_bytes() == b"a"
    assert os.readlink(first) == os.path.join("..", "..", "blobs", b"a".hex())
    assert set(cached_files(REPO)) == {"a.gguf", "sub/b.gguf"}
    assert cached_files(REPO, "refs/pr/1") == {"a.gguf": other} == cached_files(REPO, TWO)
    assert cached_commit(REPO, "refs/pr/1") == TWO
    assert cached_files(REPO, "3" * 40) == {} == cached_files(REPO, "none")
    assert cached_files("owner/none") == {}


def test_a_dangling_link_is_no_file() -> None:
    path = put("a.gguf", b"a")
    path.resolve().unlink()
    assert cached_files(REPO) == {}
    assert put("a.gguf", b"a").read_bytes() == b"a"


def test_a_revision_moves_on() -> None:
    put("a.gguf", b"a")
    put("a.gguf", b"b", TWO)
    assert cached_files(REPO)["a.gguf"].read_bytes() == b"b"
    assert cached_files(REPO, ONE)["a.gguf"].read_bytes() == b"a"


@pytest.mark.parametrize("said", ["", "../../..", "main", "1" * 39])
def test_a_ref_that_is_no_commit_leads_nowhere(said: str) -> None:
    put("a.gguf", b"a")
    (repo_folder(REPO) / "refs" / "main").write_text(said)
    assert cached_files(REPO) == {}


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a\\..\\x", "C:x", "a\0b", ""])
def test_names_that_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(InvalidParameter):
        snapshot_path(REPO, ONE, path)
    with pytest.raises(InvalidParameter):
        remember_revision(REPO, path, ONE)


def test_without_links_the_content_lies_in_the_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(1314, "A required privilege is not held by the client")

    monkeypatch.setattr(cache.os, "symlink", none)
    path = put("a.gguf", b"a")
    assert path.read_bytes() == b"a"
    assert not path.is_symlink()
    assert list((repo_folder(REPO) / "blobs").iterdir()) == []
    # A blob that was there before may be another revision's: it is copied.
    blob = repo_folder(REPO) / "blobs" / "old"
    blob.write_bytes(b"old")
    place_blob(blob, snapshot_path(REPO, TWO, "b.gguf"), None)
    assert snapshot_path(REPO, TWO, "b.gguf").read_bytes() == b"old" == blob.read_bytes()
    assert [path.name for path in snapshot_path(REPO, TWO, "b.gguf").parent.iterdir()] == ["b.gguf"]
