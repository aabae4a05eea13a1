from __future__ import annotations

import hashlib

import pytest
from support.loopback_hub import LoopbackHub

from llamalite.errors import DownloadError, Offline
from llamalite.models.hub import asking
from llamalite.models.hub.listing import list_repo

REPO = "o/r"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    noted: list[float] = []
    monkeypatch.setattr(asking.time, "sleep", noted.append)
    return noted


def failure(repo: str = REPO, revision: str = "main") -> str:
    with pytest.raises(DownloadError) as caught:
        list_repo(repo, revision)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_listing_has_sizes_and_digests(hub: LoopbackHub) -> None:
    hub.repos[REPO] = {"sub/m-Q4_0.gguf": b"GGUF4", "README.md": b"# r\n"}
    found = list_repo(REPO)
    model, readme = found.files
    assert (found.repo, found.revision, found.commit) == (REPO, "main", hub.commit(REPO))
    assert (model.path, model.n_bytes) == ("sub/m-Q4_0.gguf", 5)
    assert model.sha256 == model.blob == hashlib.sha256(b"GGUF4").hexdigest()
    assert readme.sha256 is None
    assert readme.blob == hashlib.sha1(b"blob 4\0# r\n").hexdigest()
    assert found.entry("README.md") == readme
    assert found.entry("none") is None


def test_many_files_come_in_pages(hub: LoopbackHub) -> None:
    hub.repos[REPO] = {f"m-{i:03}.gguf": b"%d" % i for i in range(25)}
    hub.page = 10
    assert [entry.path for entry in list_repo(REPO).files] == list(hub.repos[REPO])
    assert sum("/tree/" in path for _, _, path, _ in hub.seen) == 3


def test_a_revision_is_one_commit_whatever_it_is_called(hub: LoopbackHub) -> None:
    hub.repos[REPO] = {"m.gguf": b"main"}
    hub.revisions[REPO] = {"refs/pr/1": {"m.gguf": b"one"}}
    main, one = list_repo(REPO), list_repo(REPO, "refs/pr/1")
    assert main.commit != one.commit
    assert list_repo(REPO, one.commit).files == one.files != main.files


def test_each_refusal_has_its_own_line(hub: LoopbackHub) -> None:
    hub.repos[REPO] = {}
    assert failure("o/none").endswith("no such repository, or a private one: set HF_TOKEN")
    assert failure(revision="v9") == (
        f"{REPO}@v9 can't be had from {hub.url}: there is no such revision"
    )
    assert failure("o/a b").endswith("that is no repository name")
    hub.api_answers = [403]
    assert failure().endswith("the server answered 403 Forbidden: set HF_TOKEN")


def test_a_private_repository_opens_with_the_token(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos[REPO] = {"m.gguf": b"x"}
    hub.private, hub.token = {REPO}, "hf_secret"
    assert "or a private one: set HF_TOKEN" in failure()
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert failure().endswith("where the HF_TOKEN that is set isn't let in")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert len(list_repo(REPO).files) == 1


def test_what_passes_is_tried_again(hub: LoopbackHub, waits: list[float]) -> None:
    hub.repos[REPO] = {"m.gguf": b"x"}
    hub.api_answers = [500, 503]
    assert len(list_repo(REPO).files) == 1
    assert waits == [0.5, 1.5]
    hub.api_answers, hub.retry_after = [429], "7"
    assert len(list_repo(REPO).files) == 1
    assert waits[2:] == [7.0]


def test_what_does_not_pass_is_one_line(hub: LoopbackHub, waits: list[float]) -> None:
    hub.repos[REPO] = {}
    hub.api_answers = [503] * 3
    assert failure().endswith("the server answered 503 Service Unavailable")
    hub.api_answers, hub.retry_after = [429], "3600"
    assert failure().endswith("the server answered 429 Too Many Requests: try again in 3600 s")
    assert len(waits) == 2


def test_offline_and_unreachable_are_said(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMALITE_OFFLINE", "1")
    with pytest.raises(Offline, match=r"forbids fetching the list of o/r's files from http"):
        list_repo(REPO)
    assert hub.seen == []
    monkeypatch.delenv("LLAMALITE_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://someone:hunter2@127.0.0.1:9")
    assert failure() == "http://…@127.0.0.1:9 can't be reached (refused)"


def test_what_is_no_hub_is_said(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.storage_url)
    assert f"{REPO} can't be had from {hub.storage_url}: " in failure()
