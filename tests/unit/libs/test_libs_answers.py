"""What an odd server can do to a transfer: little, and above all not to what is kept."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.canned_answers import Canned, canned, reply

from llamalite.errors import ChecksumMismatch, DownloadError
from llamalite.libs.transfer import web
from llamalite.libs.transfer.download import Transfer, download
from llamalite.libs.transfer.expected import Expected
from llamalite.libs.transfer.partial import own_partial
from llamalite.libs.transfer.patience import rest
from llamalite.libs.transfer.source import Source

CONTENT = b"GGUF" + bytes(range(251)) * 400
SHA256 = hashlib.sha256(CONTENT).hexdigest()
KEPT = CONTENT[:60_000]
PAGE = b"<html>please log in</html>\n"
HTML = "Content-Type: text/html"
KNOWN = Expected(len(CONTENT), SHA256)
UNKNOWN = Expected(begins=b"GGUF")

ODD = {
    "a page": [reply("200 OK", PAGE, HTML)],
    "a page without its length": [reply("200 OK", PAGE * 100, HTML, length=None)],
    "a page of unsaid kind": [reply("200 OK", PAGE, length=None)],
    "a long page of unsaid kind": [reply("200 OK", PAGE * 100, length=None)],
    "nothing": [reply("200 OK", b"", length=len(CONTENT))],
    "no content": [reply("204 No Content")],
    "another size": [
        reply("206 Partial Content", b"x" * 10, "Content-Range: bytes 60000-60009/60010"),
        reply("200 OK", PAGE, HTML),
    ],
    "no range": [reply("206 Partial Content", b"x" * 10)],
    "another range": [
        reply("206 Partial Content", b"x" * 10, f"Content-Range: bytes 0-9/{len(CONTENT)}")
    ],
    "out of range": [
        reply("416 Range Not Satisfiable", b"", "Content-Range: bytes */60000"),
        reply("416 Range Not Satisfiable", b"", "Content-Range: bytes */60000"),
    ],
}


class Quiet:
    """Progress that shows nothing, and may call the transfer off."""

    def __init__(self, until: float = 1e9) -> None:
        self.until = until

    def expect(self, total: int) -> None: ...

    def say(self, line: str) -> None: ...

    def at(self, received: int) -> None:
        if time.monotonic() > self.until:
            raise asyncio.CancelledError


@pytest.fixture
def server() -> Iterator[Canned]:
    with canned() as server:
        yield server


@pytest.fixture
def part(tmp_path: Path) -> Path:
    path = tmp_path / "part"
    path.write_bytes(KEPT)
    return path


def fetch(server: Canned, path: Path, expected: Expected, version: str = '"v1"') -> bytes:
    total = None if expected.digest else len(CONTENT)
    source = Source(f"{server.url}/m.gguf", expected, version=version, total=total)
    with own_partial(path, expected) as part:
        Transfer(source, "m.gguf").fetch(part, Quiet())
        part.finish()
    return path.read_bytes()


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("expected", [KNOWN, UNKNOWN], ids=["digest", "no digest"])
def test_one_wrong_answer_costs_nothing_of_what_is_kept(
    server: Canned, part: Path, odd: str, expected: Expected
) -> None:
    server.answers = list(ODD[odd])
    with pytest.raises(DownloadError) as caught:
        fetch(server, part, expected)
    assert not isinstance(caught.value, ChecksumMismatch)
    assert "\n" not in str(caught.value)
    assert part.read_bytes() == KEPT
    start, length = len(KEPT), len(CONTENT)
    server.answers = [
        reply(
            "206 Partial Content",
            CONTENT[start:],
            f"Content-Range: bytes {start}-{length - 1}/{length}",
            'ETag: "v1"',
        )
    ]
    assert fetch(server, part, expected) == CONTENT


def test_a_page_is_called_one(server: Canned, part: Path) -> None:
    server.answers = list(ODD["a page"])
    with pytest.raises(DownloadError) as caught:
        fetch(server, part, KNOWN)
    assert str(caught.value) == (
        f"{server.url}/m.gguf gave 27 bytes (a web page: does the network want a login?), not the "
        f"100,404 bytes with sha256 {SHA256[:16]}… that were expected: see that the address is "
        f"right, and try again; what arrived is kept"
    )


@pytest.mark.parametrize(
    "said",
    [
        ["Content-Range: bytes 60000-100403/100404"],
        ["Content-Range: bytes 60000-100403/100404", 'ETag: "v2"'],
        ["Content-Range: bytes 60000-100403/100405", 'ETag: "v1"'],
    ],
    ids=["no version", "another version", "another size"],
)
def test_other_bytes_are_never_joined_to_what_is_kept(
    server: Canned, part: Path, said: list[str]
) -> None:
    newer = b"GGUF" + b"n" * 100_400
    server.answers = [
        reply("206 Partial Content", newer[60_000:], *said),
        reply("200 OK", newer, 'ETag: "v2"'),
    ]
    assert fetch(server, part, UNKNOWN) == newer


def test_a_date_may_be_left_out_of_a_part(server: Canned, part: Path) -> None:
    head = "Content-Range: bytes 60000-100403/100404"
    server.answers = [reply("206 Partial Content", CONTENT[60_000:], head)]
    assert fetch(server, part, UNKNOWN, "Wed, 21 Oct 2015 07:28:00 GMT") == CONTENT


def test_nothing_is_left_where_nothing_arrived(server: Canned, tmp_path: Path) -> None:
    server.answers = [reply("403 Forbidden")]
    with pytest.raises(web.Refused):
        fetch(server, tmp_path / "part", KNOWN)
    with pytest.raises(web.Refused):
        download(f"{server.url}/x", tmp_path / "x", 5, SHA256, lambda _: None, tmp_path / "cache")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_paths_are_quoted(server: Canned, tmp_path: Path) -> None:
    server.answers = [reply("200 OK", b"x")]
    download(f"{server.url}/a b/é%20%FC.gguf?q=é", tmp_path / "x", 1, None, lambda _: None)
    assert server.asked[0].startswith("GET /a%20b/%C3%A9%20%FC.gguf?q=%C3%A9 HTTP")


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\n\r\nsome", reply("503 Busy", b"", "Retry-After: 20")],
    ids=["before the answer", "in the middle", "asked to wait"],
)
def test_whoever_waits_can_be_called_off(server: Canned, tmp_path: Path, answer: bytes) -> None:
    server.answers, server.hangs = [answer], not answer.startswith(b"HTTP/1.1 503")
    started = time.monotonic()
    quiet = Quiet(started + 0.3)
    with pytest.raises(asyncio.CancelledError):
        download(f"{server.url}/x", tmp_path / "x", None, None, progress=quiet)
    assert time.monotonic() - started < 2


def test_a_rest_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    beats: list[int] = []
    rest(0.5, lambda: beats.append(1))
    assert sum(slept) == pytest.approx(0.5)
    assert len(beats) == 3


def test_what_has_no_end_is_said_to_have_none(server: Canned, tmp_path: Path) -> None:
    server.answers = [reply("200 OK", CONTENT, length=None)]
    source = Source(f"{server.url}/x", Expected())
    with (
        pytest.raises(ChecksumMismatch, match=r"/x has no end: over 1,000 bytes came, of which"),
        own_partial(tmp_path / "part", Expected()) as part,
    ):
        Transfer(source, "x", most=1000).fetch(part, Quiet())
