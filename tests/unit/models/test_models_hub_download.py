from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from models_hub_files import FILE, REPO, ROOT, Noted, child, fetch, n_here, part, wait_for
from support.loopback_hub import LoopbackHub

from llamalite.errors import ChecksumMismatch, DownloadError, InvalidParameter, Offline
from llamalite.libs.transfer import download as transfer
from llamalite.models.hub.cache import cache_folder, cached_commit, cached_files, repo_folder
from llamalite.models.hub.download import download_file
from llamalite.models.hub.listing import HubEntry, HubListing, list_repo

CONTENT = bytes(range(256)) * 8192  # 2 MiB
NAME = f"{REPO}/{FILE}"


@pytest.fixture
def hub(hub: LoopbackHub) -> LoopbackHub:
    hub.repos[REPO][FILE] = CONTENT
    return hub


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between tries, noted and not made."""
    noted: list[float] = []
    monkeypatch.setattr(transfer, "rest", lambda seconds, _: noted.append(seconds))
    return noted


def failure(kind: type[DownloadError] = DownloadError, file: str = FILE) -> str:
    with pytest.raises(kind) as caught:
        fetch(file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files_in_cache() -> list[str]:
    """All files of the cache but locks and refs."""
    found = (path for path in cache_folder().rglob("*") if path.is_file())
    kept = (path.name for path in found if path.suffix != ".lock" and path.parent.name != "refs")
    return sorted(kept)


def test_a_file_comes_into_the_cache_and_is_not_fetched_twice(hub: LoopbackHub) -> None:
    listing = list_repo(REPO)
    entry, noted = listing.entry(FILE), Noted()
    assert entry is not None
    path = download_file(listing, entry, noted)
    assert path.read_bytes() == CONTENT
    assert path == cached_files(REPO)[FILE]
    assert path.resolve().name == entry.sha256
    assert cached_commit(REPO) == listing.commit
    assert noted.received == sorted(noted.received)
    assert (noted.sizes[0], noted.received[-1]) == (len(CONTENT), len(CONTENT))
    assert files_in_cache() == sorted([FILE, str(entry.sha256)])
    hub.seen.clear()
    assert download_file(listing, entry, noted) == path
    assert hub.seen == []


def test_a_small_file_is_proved_by_what_git_calls_it(hub: LoopbackHub) -> None:
    assert fetch("README.md").read_bytes() == b"# Tiny\n"
    hub.repos[REPO]["NOTES.md"] = b"notes"
    hub.flipped = True
    assert "with git's sha1" in failure(ChecksumMismatch, "NOTES.md")
    assert "NOTES.md" not in files_in_cache()


def test_the_token_goes_to_the_hub_alone(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.private, hub.token = {REPO}, "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetch().read_bytes() == CONTENT
    assert fetch("README.md").read_bytes() == b"# Tiny\n"  # sent on to the Hub's own host
    assert hub.requests("storage", "GET")
    assert not any("authorization" in headers for headers in hub.requests("storage", "GET"))


def test_a_login_in_the_hubs_address_is_used_and_not_shown(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url.replace("//", "//someone:hunter2@"))
    assert fetch().read_bytes() == CONTENT
    assert any(
        headers.get("authorization") == "Basic c29tZW9uZTpodW50ZXIy"
        for _, method, path, headers in hub.seen
        if method == "GET" and "/resolve/" in path
    )
    hub.flipped = True
    hub.repos[REPO]["other.gguf"] = b"GGUF"
    message = failure(ChecksumMismatch, "other.gguf")
    assert "hunter2" not in message
    assert "…@127.0.0.1" in message


def test_a_wrong_byte_leaves_nothing(hub: LoopbackHub) -> None:
    hub.flipped = True
    message = failure(ChecksumMismatch)
    assert message.startswith(f"{hub.url}/{NAME} gave 2,097,152 bytes with sha256 ")
    assert "nothing was kept; try again" in message
    assert files_in_cache() == []
    assert cached_files(REPO) == {}
    hub.flipped = False
    assert fetch().read_bytes() == CONTENT


def test_a_damaged_part_is_found_out(hub: LoopbackHub, hasty: list[float]) -> None:
    hub.cuts = [1 << 20, 0]
    assert "what arrived is kept" in failure()
    with open(part(), "r+b") as file:
        file.write(b"?")
    assert fetch().read_bytes() == CONTENT


def test_cut_connections_are_taken_up_where_they_broke(
    hub: LoopbackHub, hasty: list[float]
) -> None:
    hub.cuts = [300_000, 700_000]
    assert fetch().read_bytes() == CONTENT
    assert hub.ranges_asked() == [None, "bytes=300000-", "bytes=1000000-"]


def test_what_passes_is_tried_again(hub: LoopbackHub, hasty: list[float]) -> None:
    hub.answers, hub.storage_answers = [500, 503], [500]
    assert fetch().read_bytes() == CONTENT
    assert hasty == [0.5, 1.0, 2.0]
    hub.answers, hub.retry_after = [429], "7"
    fetch(force=True)
    assert hasty[3:] == [7.0]


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (403, "GatedRepo", "accept its terms at {url}/owner/Tiny-GGUF first, then set HF_TOKEN"),
        (401, "GatedRepo", "accept its terms at {url}/owner/Tiny-GGUF first, then set HF_TOKEN"),
        (404, "EntryNotFound", "the repository has no such file"),
        (403, "", "the server answered 403 Forbidden: set HF_TOKEN"),
        (503, "", "the server answered 503 Service Unavailable"),
        (429, "", "the server answered 429 Too Many Requests: try again in 3600 s"),
    ],
)
def test_each_refusal_has_its_own_line(
    hub: LoopbackHub, hasty: list[float], status: int, code: str, expected: str
) -> None:
    hub.answers, hub.code = [status] * 6, code
    hub.retry_after = "3600" if status == 429 else ""
    assert failure() == f"{NAME} can't be fetched from {hub.url}: " + expected.format(url=hub.url)
    assert len(hasty) == (5 if status == 503 else 0)


def test_gated_files_open_with_the_token(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated, hub.token = {REPO}, "hf_secret"
    assert f"accept its terms at {hub.url}/{REPO} first" in failure()
    assert files_in_cache() == []
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetch().read_bytes() == CONTENT


def test_a_storage_that_refuses_or_is_not_there_is_named(
    hub: LoopbackHub, hasty: list[float]
) -> None:
    hub.storage_answers = [403]
    assert failure().endswith("the server answered 403 Forbidden: it wants a login")
    hub.storage = "http://127.0.0.1:9"
    assert failure().endswith(f"from {hub.url}: it leads to 127.0.0.1:9: refused")


def test_offline_is_said_but_what_is_here_is_given(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = list_repo(REPO)
    path = fetch("README.md")
    monkeypatch.setenv("LLAMALITE_OFFLINE", "1")
    model, readme = listing.entry(FILE), listing.entry("README.md")
    assert model is not None
    assert readme is not None
    assert download_file(listing, readme, Noted()) == path
    with pytest.raises(Offline, match=r"forbids fetching .*Q4_1.gguf \(2.1 MB\) from"):
        download_file(listing, model, Noted())


@pytest.mark.parametrize("path", ["../../evil", "/tmp/evil", "a/../../evil", "C:\\evil", "a\0b"])
def test_names_that_lead_elsewhere_are_refused(
    hub: LoopbackHub, empty_computer: Path, path: str
) -> None:
    hub.repos[REPO] = {path: b"GGUF"}
    with pytest.raises(InvalidParameter, match="refused"):
        fetch(path)
    assert not list(empty_computer.rglob("*evil*"))
    assert not cache_folder().exists()


def test_a_hub_that_gives_no_digests_or_commits_is_refused(hub: LoopbackHub) -> None:
    entry = HubEntry("m.gguf", 4, None, "../../evil")
    listing = HubListing(REPO, "main", "1" * 40, (entry,))
    with pytest.raises(DownloadError, match=r"gives no digest of owner/Tiny-GGUF/m.gguf"):
        download_file(listing, entry, Noted())


def test_there_must_be_room(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1_000_000

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    message = failure()
    assert message.startswith(f"{NAME} needs 2.1 MB more in ")
    assert "where 1.0 MB are free: free some, or set HF_HUB_CACHE" in message
    assert hub.requests("storage", "GET") == []
    blob = repo_folder(REPO) / "blobs" / f"{list_repo(REPO).files[0].blob}.llamalite.incomplete"
    blob.write_bytes(CONTENT[:1_500_000])
    assert fetch().read_bytes() == CONTENT


def test_a_disk_that_fills_up_is_one_line_and_what_arrived_stays(hub: LoopbackHub) -> None:
    pytest.importorskip("resource", reason="this system has no limits to set")
    listing = list_repo(REPO)
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "from models_hub_files import Noted\n"
        "from llamalite.models.hub.download import download_file\n"
        "from llamalite.models.hub.listing import HubEntry, HubListing\n"
        "from llamalite.errors import DownloadError\n"
        f"listing = {listing!r}\n"
        "try: download_file(listing, listing.files[0], Noted())\n"
        "except DownloadError as error: print(error)\n"
    )
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests", Path(__file__).parent)))
    env = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert "can't be written (File too large): free some, or set HF_HUB_CACHE" in done.stdout
    assert done.stdout.count("\n") == 1
    assert 0 < n_here() <= 1 << 20
    assert cached_files(REPO) == {}
    assert fetch().read_bytes() == CONTENT


def test_a_cache_that_cannot_be_made_is_one_line(hub: LoopbackHub, empty_computer: Path) -> None:
    (empty_computer / "hub").write_text("a file")
    expected = "can't be written (Not a directory): see to that, or set HF_HUB_CACHE to another"
    assert expected in failure()


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a folder one that this process may only read."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o555)
    is_root = os.geteuid() == 0
    folders = [path for path in folder.parents if is_root and path.stat().st_uid == 0]
    modes = {path: path.stat().st_mode for path in folders}
    for path in folders:
        path.chmod(modes[path] | 0o555)
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode)
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="folders can't be made read-only there")
def test_a_cache_that_may_only_be_read_gives_what_it_has(hub: LoopbackHub) -> None:
    path = fetch()
    listing = list_repo(REPO)
    renamed = HubListing(REPO, "v1", listing.commit, listing.files)
    with read_only(cache_folder()):
        assert download_file(renamed, listing.files[0], Noted()) == path
        with pytest.raises(DownloadError, match=r"can't be written \(Permission denied\)"):
            download_file(listing, listing.files[1], Noted())


def test_a_long_name_in_another_script_is_no_obstacle(hub: LoopbackHub) -> None:
    name = "模" * 80 + ".gguf"
    hub.repos[REPO][name] = CONTENT
    assert fetch(name).read_bytes() == CONTENT


def test_force_fetches_anew_and_a_file_cut_short_is_no_file(hub: LoopbackHub) -> None:
    path = fetch()
    with open(path, "r+b") as file:
        file.write(b"?")
    assert fetch().read_bytes() != CONTENT
    assert fetch(force=True).read_bytes() == CONTENT
    os.truncate(path, 1000)
    assert fetch().read_bytes() == CONTENT
    assert hub.sent[NAME] == 3 * len(CONTENT)


def test_two_revisions_share_what_is_the_same(hub: LoopbackHub) -> None:
    hub.revisions[REPO] = {"v2": {FILE: CONTENT, "new.gguf": b"GGUF"}}
    first, second = fetch(), fetch(revision="v2")
    assert first != second
    assert first.resolve() == second.resolve()
    assert hub.sent[NAME] == len(CONTENT)
    assert cached_files(REPO, "v2") == {FILE: second}


def test_a_killed_fetch_goes_on_where_it_was(hub: LoopbackHub) -> None:
    hub.slow = 1_500_000
    chunk = 1 << 18
    lengths = [0]
    for _ in range(3):
        process = child(hub)
        wait_for(lambda: n_here() > lengths[-1] + 100_000)
        process.kill()
        process.communicate()
        lengths.append(n_here())
        assert cached_files(REPO) == {}
    hub.slow = None
    time.sleep(0.1)  # what is on its way is counted
    before = hub.sent[NAME]
    assert fetch().read_bytes() == CONTENT
    starts = [int(asked[6:-1]) if asked else 0 for asked in hub.ranges_asked()]
    assert starts == lengths
    assert hub.sent[NAME] - before == len(CONTENT) - lengths[-1]
    assert hub.sent[NAME] < len(CONTENT) + 3 * chunk


def test_of_two_at_once_one_fetches_and_the_other_takes_over(hub: LoopbackHub) -> None:
    hub.slow = 1_000_000
    first = child(hub)
    wait_for(lambda: n_here() > 100_000)
    second, third = child(hub), child(hub)
    assert second.stdout is not None
    wait_for(lambda: second.stdout and "waiting for it" in second.stdout.readline())
    first.kill()
    first.communicate()
    hub.slow = None
    outputs = [process.communicate(timeout=60) for process in (second, third)]
    assert {out.strip().splitlines()[-1] for out, _ in outputs} == {str(cached_files(REPO)[FILE])}
    assert cached_files(REPO)[FILE].read_bytes() == CONTENT
    assert len(hub.requests("storage", "GET")) == 2
    assert hub.sent[NAME] < len(CONTENT) + (1 << 18)


def test_many_threads_fetch_once(hub: LoopbackHub) -> None:
    listing = list_repo(REPO)
    paths: list[Path] = []
    threads = [
        threading.Thread(
            target=lambda: paths.append(download_file(listing, listing.files[0], Noted()))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 4
    assert hub.sent[NAME] == len(CONTENT)
