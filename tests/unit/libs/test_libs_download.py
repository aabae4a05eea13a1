from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.loopback_github import LoopbackGitHub, serving
from support.loopback_hub import LoopbackHub
from support.unreachable_hosts import answering, closed_port

from llamalite.errors import ChecksumMismatch, DownloadError
from llamalite.libs.transfer import download as module
from llamalite.libs.transfer import partial, web
from llamalite.libs.transfer.download import download
from llamalite.libs.transfer.partial import partial_file
from llamalite.libs.transfer.progress import say_on_stderr, show_progress

ROOT = Path(__file__).resolve().parents[3]
CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "llama-b1-bin-ubuntu-x64.tar.gz"


@pytest.fixture
def github() -> Iterator[LoopbackGitHub]:
    with serving() as github:
        github.files[NAME] = CONTENT
        yield github


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def said() -> list[str]:
    return []


class Fetched:
    """One fetch of the file, with what it said."""

    def __init__(self, github: LoopbackGitHub, folder: Path, said: list[str]) -> None:
        self.url = f"{github.url}/ggml-org/llama.cpp/releases/download/b1/{NAME}"
        self.into, self.said = folder / NAME, said

    def __call__(self, cache: Path | None, sha256: str | None = SHA256, **known: int) -> bytes:
        download(self.url, self.into, known.get("n", len(CONTENT)), sha256, self.said.append, cache)
        return self.into.read_bytes()


@pytest.fixture
def fetch(github: LoopbackGitHub, tmp_path: Path, said: list[str]) -> Fetched:
    return Fetched(github, tmp_path, said)


def part_of(cache: Path) -> Path:
    return cache / f"{SHA256}.part"


def ranges(github: LoopbackGitHub) -> list[str]:
    return [seen["range"] for seen in github.headers if "range" in seen]


def test_a_file_arrives_whole_and_nothing_else_is_left(
    fetch: Fetched, cache: Path, github: LoopbackGitHub
) -> None:
    assert fetch(cache) == CONTENT
    assert list(cache.iterdir()) == []
    assert ranges(github) == []
    assert fetch.into.stat().st_mode & 0o777 == 0o644


def test_a_broken_transfer_goes_on_where_it_broke(
    fetch: Fetched, cache: Path, github: LoopbackGitHub, said: list[str]
) -> None:
    github.cut_at, github.cuts = 300_000, 3
    assert fetch(cache) == CONTENT
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in ranges(github)[::2]]
    assert starts == [300_000, 600_000, 900_000]
    assert sum("going on" in line for line in said) == 3


def test_without_ranges_a_broken_transfer_starts_over_and_then_gives_up(
    fetch: Fetched, cache: Path, github: LoopbackGitHub
) -> None:
    github.no_ranges, github.cut_at, github.cuts = True, 300_000, 1
    assert fetch(cache) == CONTENT
    github.cuts = None
    with pytest.raises(DownloadError, match="broke off after 300,000 of 1,048,576 bytes"):
        fetch(cache)
    assert not fetch.into.with_name("x").exists()


def test_retries_end_though_each_makes_some_progress(
    fetch: Fetched, cache: Path, github: LoopbackGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    github.cut_at = 1000
    with pytest.raises(DownloadError, match=r"broke off after 6,000 .* what arrived is kept"):
        fetch(cache)
    assert not fetch.into.exists()
    github.cut_at = None
    assert fetch(cache) == CONTENT
    assert fetch.said[-1] == f"continuing {NAME} at 6,000 bytes"


def test_a_killed_fetch_is_continued_by_the_next_process(
    fetch: Fetched, cache: Path, github: LoopbackGitHub, said: list[str]
) -> None:
    github.slow = 1_000_000
    code = (
        "import sys; from pathlib import Path\n"
        "from llamalite.libs.transfer.download import download\n"
        "url, into, sha256, cache = sys.argv[1:]\n"
        f"download(url, Path(into), {len(CONTENT)}, sha256, None, Path(cache))\n"
    )
    arguments = [fetch.url, str(fetch.into), SHA256, str(cache)]
    lengths = [0]
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT)
        while not part_of(cache).exists() or part_of(cache).stat().st_size < lengths[-1] + 1e5:
            assert child.poll() is None
            time.sleep(0.01)
        child.kill()
        child.wait()
        lengths.append(part_of(cache).stat().st_size)
        assert not fetch.into.exists()
    assert 0 < lengths[1] < lengths[2] < len(CONTENT)
    github.slow = None
    assert fetch(cache) == CONTENT
    assert said == [f"continuing {NAME} at {lengths[2]:,} bytes"]
    assert ranges(github)[-1] == f"bytes={lengths[2]}-"
    assert list(cache.iterdir()) == []


def test_a_part_that_is_already_whole_needs_no_request(
    fetch: Fetched, cache: Path, github: LoopbackGitHub
) -> None:
    cache.mkdir()
    part_of(cache).write_bytes(CONTENT)
    assert fetch(cache) == CONTENT
    assert github.requests == []


@pytest.mark.parametrize("kept", [b"\0" * 5000, b"\0" * len(CONTENT), CONTENT + b"more"])
def test_a_part_that_is_damaged_or_too_long_is_fetched_anew(
    fetch: Fetched, cache: Path, said: list[str], kept: bytes
) -> None:
    cache.mkdir()
    part_of(cache).write_bytes(kept)
    assert fetch(cache) == CONTENT
    assert any("is damaged: fetching it anew" in line for line in said) == (len(kept) <= 1 << 20)


def test_wrong_content_is_refused_and_not_kept(
    fetch: Fetched, cache: Path, github: LoopbackGitHub
) -> None:
    github.wrong_content = True
    with pytest.raises(ChecksumMismatch, match="that were expected: nothing was kept"):
        fetch(cache)
    assert list(cache.iterdir()) == []
    github.wrong_content = False
    for content in (CONTENT + b"more", CONTENT[:-1], b""):
        github.files[NAME] = content
        with pytest.raises(DownloadError, match=f"gave {len(content):,} bytes, not the 1,048"):
            fetch(cache)
    assert list(cache.iterdir()) == []
    assert not fetch.into.exists()


def test_without_a_digest_only_the_size_is_checked_and_nothing_is_kept(
    fetch: Fetched, cache: Path, github: LoopbackGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    github.cut_at, github.cuts = 300_000, 2
    assert fetch(cache, sha256=None) == CONTENT
    assert len(ranges(github)) == 4
    assert all("if-range" in seen for seen in github.headers if "range" in seen)
    github.cut_at, github.cuts = 1000, None
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(DownloadError, match=r"try again$"):
        fetch(cache, sha256=None)
    assert not fetch.into.exists()
    assert not cache.exists()
    github.cut_at = None
    with pytest.raises(DownloadError, match="gave 1,048,576 bytes, not the 5 bytes"):
        fetch(cache, sha256=None, n=5)


def test_size_and_digest_may_both_be_unknown(
    github: LoopbackGitHub, tmp_path: Path, said: list[str]
) -> None:
    github.cut_at, github.cuts = 300_000, 1
    url = f"{github.url}/ggml-org/llama.cpp/releases/download/b1/{NAME}"
    download(url, tmp_path / "x", None, None, said.append)
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_server_that_falls_silent_is_given_up_in_time(
    fetch: Fetched, cache: Path, github: LoopbackGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_LIMIT_S", 0.5)
    monkeypatch.setattr(web, "OPEN_LIMIT_S", 0.5)
    github.stop_at = 200_000
    started = time.monotonic()
    with pytest.raises(DownloadError, match=r"fell silent for 0.5 s after 200,000 of 1,048,576"):
        fetch(cache)
    assert part_of(cache).stat().st_size == 200_000
    github.swallow = True
    with pytest.raises(DownloadError, match=r"can't be fetched \(no answer"):
        fetch(cache)
    assert time.monotonic() - started < 5
    github.swallow, github.stop_at = False, None
    assert fetch(cache) == CONTENT


def test_a_server_that_drips_is_as_good_as_silent(
    fetch: Fetched, cache: Path, github: LoopbackGitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_LIMIT_S", 1.0)
    github.slow = 50
    started = time.monotonic()
    with pytest.raises(DownloadError, match="fell silent"):
        fetch(cache)
    assert time.monotonic() - started < 10


def test_a_full_disk_frees_what_was_taken(
    fetch: Fetched, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = partial.PartialFile.append

    def full(part: partial.PartialFile, block: bytes) -> None:
        if part.n_bytes > 100_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(part, block[:200_000])

    monkeypatch.setattr(partial.PartialFile, "append", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(cache)
    assert list(cache.iterdir()) == []
    assert not fetch.into.exists()


def test_a_missing_file_and_a_wrong_address_say_so(
    github: LoopbackGitHub, tmp_path: Path, cache: Path
) -> None:
    for url, why in (
        (f"{github.url}/ggml-org/llama.cpp/releases/download/b1/none", "answered 404 Not Found"),
        ("http://127.0.0.1:9/x", "refused"),
        ("file:///etc/passwd", "no http or https address"),
        ("http://[::1", "can't be fetched"),
        ("http://127.0.0.1:1/a b\n", "can't be fetched"),
    ):
        with pytest.raises(DownloadError, match=why) as caught:
            download(url, tmp_path / "x", 5, "0" * 64, lambda _: None, cache)
        assert "\n" not in str(caught.value).replace(url, "")
        assert not (tmp_path / "x").exists()


def test_old_parts_go_and_young_ones_stay(fetch: Fetched, cache: Path) -> None:
    cache.mkdir()
    old, young = cache / "aa.part", cache / "bb.part"
    for path, age in ((old, partial.KEPT_S + 100), (young, 100)):
        path.write_bytes(b"x")
        os.utime(path, (time.time() - age, time.time() - age))
    fetch(cache)
    assert list(cache.iterdir()) == [young]


def test_two_at_once_never_share_a_part(cache: Path, tmp_path: Path) -> None:
    with partial_file(tmp_path / "one", SHA256, cache) as first:
        with partial_file(tmp_path / "two", SHA256, cache) as second:
            second.append(CONTENT)
            assert (first.is_kept, second.is_kept) == (True, False)
            assert second.path == tmp_path / "two"
        first.append(CONTENT)
        first.move_to(tmp_path / "one")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == CONTENT


def test_a_part_that_is_finished_while_it_is_claimed_is_left_alone(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process moves its finished file away between our opening it and locking it."""
    finished = tmp_path / "theirs"
    lock = partial._lock

    def late(stream: Any) -> bool:
        part_of(cache).rename(finished)
        part_of(cache).write_bytes(b"new")
        return lock(stream)

    monkeypatch.setattr(partial, "_lock", late)
    with partial_file(tmp_path / "ours", SHA256, cache) as part:
        part.append(CONTENT)
    assert finished.read_bytes() == b""
    assert part_of(cache).read_bytes() == b"new"


def test_many_fetches_at_once_all_succeed(
    github: LoopbackGitHub, cache: Path, tmp_path: Path
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    url = f"{github.url}/ggml-org/llama.cpp/releases/download/b1/{NAME}"

    def one(number: int) -> bytes:
        into = tmp_path / f"{number}"
        download(url, into, len(CONTENT), SHA256, lambda _: None, cache)
        return into.read_bytes()

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(one, range(18))) == {CONTENT}
    assert list(cache.iterdir()) == []


def test_progress_is_a_line_per_tenth_from_where_it_starts(
    fetch: Fetched, cache: Path, github: LoopbackGitHub, said: list[str]
) -> None:
    cache.mkdir()
    part_of(cache).write_bytes(CONTENT[: len(CONTENT) // 2])
    github.slow = 400_000
    fetch(cache)
    lines = [line for line in said if "%" in line]
    assert 2 <= len(lines) <= 5
    assert all(int(line.split()[1]) > 50 for line in lines)
    assert lines[-1] == f"{NAME}: 100 % of 1.0 MB"


def test_a_terminal_gets_a_bar(github: LoopbackGitHub, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty", reason="this system has no pseudo terminals")
    url = f"{github.url}/ggml-org/llama.cpp/releases/download/b1/{NAME}"
    github.cut_at, github.cuts = 500_000, 1
    code = (
        "import sys; from pathlib import Path\n"
        "from llamalite.libs.transfer.download import download\n"
        f"download({url!r}, Path({str(tmp_path / 'x')!r}), {len(CONTENT)}, {SHA256!r})\n"
    )
    ours, theirs = pty.openpty()
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 4096):
            shown += block
    except OSError:
        pass  # how Linux says that the other end is closed
    os.close(ours)
    assert child.wait(30) == 0
    assert "━".encode() in shown
    assert b"going on" in shown


def test_https_is_never_left_for_http() -> None:
    from urllib.error import URLError
    from urllib.request import Request

    redirects = web._Redirects()
    request = Request("https://example.org/x")
    with pytest.raises(URLError, match="isn't https"):
        redirects.redirect_request(request, None, 302, "", {}, "http://example.org/x")
    for address in ("file:///etc/passwd", "ftp://example.org/x", "data:,x"):
        with pytest.raises(ValueError, match="no http or https"):
            redirects.redirect_request(request, None, 302, "", {}, address)


@pytest.mark.parametrize("small", [False, True])
def test_where_a_redirect_led_is_named_if_it_cannot_be_reached(
    tmp_path: Path, said: list[str], small: bool
) -> None:
    there = f"127.0.0.1:{closed_port()}"
    with answering(302, f"http://{there}/storage/x?signature=secret") as (url, _):
        ways = {
            True: lambda: web.read_small(f"{url}/x", 100),
            False: lambda: download(f"{url}/x", tmp_path / "x", None, None, said.append),
        }
        with pytest.raises(DownloadError) as caught:
            ways[small]()
    expected = f"{url}/x can't be fetched (it leads to {there}: refused)"
    assert str(caught.value) == expected


@pytest.mark.parametrize("port", ["99999", "x"])
def test_a_port_that_is_none_is_one_line(tmp_path: Path, said: list[str], port: str) -> None:
    with pytest.raises(web.Unanswered):
        web.open_url(f"http://127.0.0.1:{port}/")
    with answering(302, f"http://127.0.0.1:{port}/") as (url, _), pytest.raises(web.Unanswered):
        web.open_url(url)


class _Full:
    """A stderr on a full disk."""

    def write(self, *_: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    flush = isatty = write


def test_lines_for_a_person_never_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with open(tmp_path / "closed", "w") as closed:
        pass
    for stderr in (None, closed, _Full()):
        monkeypatch.setattr(sys, "stderr", stderr)
        say_on_stderr("a line")
        with show_progress("x", 100, None) as progress:
            progress.at(50)
            progress.say("a line")
    assert capsys.readouterr().out == ""


def test_a_line_for_a_person_drives_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say_on_stderr("a\x1b[31mb\nc\udcff")
    assert capsys.readouterr().err == "a\\x1b[31mb\\nc\\udcff\n"


class _Noted:
    """Progress that remembers what it was told."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.received: list[int] = []
        self.lines: list[str] = []
        self.expect, self.at, self.say = self.sizes.append, self.received.append, self.lines.append


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub(repos={"o/r": {"m.gguf": CONTENT, "notes": b"notes"}}) as hub:
        yield hub


def test_a_progress_that_is_given_is_told_and_nothing_is_shown(
    hub: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noted = _Noted()
    url = f"{hub.storage_url}/o/r/m.gguf"
    download(url, tmp_path / "x", len(CONTENT), SHA256, progress=noted)
    assert noted.sizes[0] == noted.received[-1] == len(CONTENT)
    assert capsys.readouterr() == ("", "")


def test_secrets_follow_to_the_same_host_and_no_further(hub: LoopbackHub, tmp_path: Path) -> None:
    secrets = {"Authorization": "Bearer secret"}
    for file in ("m.gguf", "notes"):
        url = f"{hub.url}/o/r/resolve/main/{file}"
        download(url, tmp_path / "x", None, None, lambda _: None, secrets=secrets)
    with_secret = [path for _, _, path, headers in hub.seen if "authorization" in headers]
    assert [path.split("/")[3] for path in with_secret] == ["resolve", "resolve", "models"]
    assert len(hub.requests("storage", "GET")) == 1


def test_a_server_that_is_gone_after_a_break_is_given_some_time(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def wait(seconds: float, _: object) -> None:
        if not waits:
            hub.close()
        waits.append(seconds)

    monkeypatch.setattr(module, "rest", wait)
    hub.cuts = [1000]
    with pytest.raises(DownloadError, match="refused"):
        download(f"{hub.storage_url}/o/r/m.gguf", tmp_path / "x", None, SHA256, lambda _: None)
    assert waits == [0.2, 1.0, 2.0, 4.0, 4.0]
