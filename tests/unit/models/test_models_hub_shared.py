"""huggingface_hub itself, in this and other processes, and the cache that is shared with it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download, scan_cache_dir, try_to_load_from_cache
from models_hub_files import FILE, REPO, Noted, fetch, wait_for
from support.loopback_hub import LoopbackHub

from llamalite.models.hub.cache import blob_lock, cache_folder, cached_files, repo_folder
from llamalite.models.hub.download import download_file
from llamalite.models.hub.listing import list_repo

NAME = f"{REPO}/{FILE}"


def theirs(hub: LoopbackHub, revision: str = "main", file: str = FILE) -> Path:
    return Path(hf_hub_download(REPO, file, revision=revision, endpoint=hub.url))


@pytest.fixture(params=[False, True], ids=["links", "no links"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param:
        monkeypatch.setenv("HF_HUB_DISABLE_SYMLINKS", "1")
        # Older versions have no such setting: they make links, and find files all the same.
        name = "huggingface_hub.constants.HF_HUB_DISABLE_SYMLINKS"
        monkeypatch.setattr(name, True, raising=False)
    return not request.param


def test_they_find_our_files(hub: LoopbackHub, links: bool) -> None:
    path, readme = fetch(), fetch("README.md")
    assert path.is_symlink() == links
    assert try_to_load_from_cache(REPO, FILE) == str(path)
    sent = hub.n_sent
    assert theirs(hub) == path
    assert theirs(hub, file="README.md") == readme
    assert hub.n_sent == sent
    (repo,) = scan_cache_dir(cache_folder()).repos
    (revision,) = repo.revisions
    assert (revision.refs, revision.commit_hash) == (frozenset({"main"}), hub.commit(REPO))
    assert {file.file_name for file in revision.files} == {FILE, "README.md"}
    assert not scan_cache_dir(cache_folder()).warnings


def test_we_find_theirs(hub: LoopbackHub, links: bool) -> None:
    path, readme = theirs(hub), theirs(hub, file="README.md")
    sent = hub.n_sent
    assert cached_files(REPO) == {FILE: path, "README.md": readme}
    assert fetch() == path
    assert fetch("README.md") == readme
    assert hub.n_sent == sent


def test_blobs_are_shared_among_revisions(hub: LoopbackHub) -> None:
    hub.revisions[REPO] = {"v2": {FILE: hub.repos[REPO][FILE]}, "v3": {FILE: b"GGUF"}}
    fetch()
    assert theirs(hub, "v2").read_bytes() == hub.repos[REPO][FILE]
    assert theirs(hub, "v3").read_bytes() == b"GGUF"
    sent = hub.n_sent
    assert fetch(revision="v3").read_bytes() == b"GGUF"
    assert len(list((repo_folder(REPO) / "blobs").iterdir())) == 2
    assert hub.n_sent == sent


def test_they_wait_while_we_fetch(hub: LoopbackHub) -> None:
    hub.slow = 200_000
    paths: list[Path] = []
    ours = threading.Thread(target=lambda: paths.append(fetch()))
    ours.start()
    wait_for(lambda: hub.sent[NAME])
    assert theirs(hub).read_bytes() == hub.repos[REPO][FILE]
    ours.join()
    assert hub.sent[NAME] == len(hub.repos[REPO][FILE])


def test_we_wait_while_they_fetch(hub: LoopbackHub) -> None:
    listing = list_repo(REPO)
    hub.slow = 100_000
    other = threading.Thread(target=theirs, args=(hub,))
    other.start()
    wait_for(lambda: hub.sent[NAME])
    noted = Noted()
    path = download_file(listing, listing.files[0], noted)
    other.join()
    assert path.read_bytes() == hub.repos[REPO][FILE]
    assert "another program is fetching" in noted.lines[0]
    assert hub.sent[NAME] == len(hub.repos[REPO][FILE])


def test_the_lock_is_theirs(hub: LoopbackHub) -> None:
    from filelock import FileLock, Timeout

    blob = list_repo(REPO).files[0].blob
    theirs(hub)
    path = cache_folder() / ".locks" / "models--owner--Tiny-GGUF" / f"{blob}.lock"
    with blob_lock(REPO, blob, lambda: None), pytest.raises(Timeout):
        FileLock(path).acquire(timeout=0)
