"""Answers that no Hub gives: none may hang, be believed, or end in anything but one line."""

from __future__ import annotations

import itertools
import json
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.gguf_models import write_llama
from support.odd_server import Reply, odd_server

from llamalite.errors import DownloadError
from llamalite.libs.transfer import web
from llamalite.models.hub import asking, byte_ranges, listing
from llamalite.models.hub.address import check_reachable, file_url, identity
from llamalite.models.hub.listing import list_repo
from llamalite.models.hub.remote_header import read_url_header

COMMIT = "c" * 40
NO_LISTING = "it answered something that is no listing (a login page?): check HF_ENDPOINT and"
ENTRY: dict[str, Any] = {"type": "file", "path": "m.gguf", "size": 5, "oid": "a" * 40}


def failure(call: Callable[[], object]) -> str:
    """Return the one line that a call ends in, within seconds."""
    started = time.monotonic()
    with pytest.raises(DownloadError) as caught:
        call()
    assert time.monotonic() - started < 3
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Tells why a repository can't be listed whose tree is this answer."""

    def refused(tree: Reply | Callable[[str], Reply], commit: object = COMMIT) -> str:
        def answer(path: str, _: str) -> Reply:
            if "/tree/" not in path:
                return 200, {}, json.dumps({"sha": commit}).encode()
            return tree(path) if callable(tree) else tree

        with odd_server(answer) as url:
            monkeypatch.setenv("HF_ENDPOINT", url)
            line = failure(lambda: list_repo("o/r"))
        assert line.startswith(f"o/r can't be had from {url}: ")
        return line

    return refused


@pytest.mark.parametrize(
    "odd",
    [
        *({**ENTRY, "size": size} for size in (None, "5", -5, 1.5, True, 1 << 60)),
        *({**ENTRY, "path": path} for path in (None, 7, "\ud800.gguf")),
        *({**ENTRY, "oid": oid} for oid in (None, 7, "../../evil")),
        *({**ENTRY, "lfs": lfs} for lfs in ("x", 7, {"oid": 7}, {"oid": "z" * 64})),
        {**ENTRY, "type": None},
        "m.gguf",
    ],
)
def test_an_entry_of_odd_fields_is_not_believed(listed: Callable[..., str], odd: object) -> None:
    assert NO_LISTING in listed((200, {}, json.dumps([ENTRY, odd]).encode()))


@pytest.mark.parametrize("page", [b"", b"<html>", b"{}", b"null", b"[", b"[" * 99_999, b"\xff"])
def test_a_page_that_is_no_listing_is_said_to_be_none(
    listed: Callable[..., str], page: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    assert NO_LISTING in listed((200, {}, page))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("commit", [None, 7, "main", ["c" * 40]])
def test_a_commit_must_be_one(listed: Callable[..., str], commit: object) -> None:
    assert NO_LISTING in listed((200, {}, b"[]"), commit)


def test_pages_must_lead_on_and_end(
    listed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(to: str) -> dict[str, str]:
        return {"Link": f'<{to}>; rel="next"'}

    monkeypatch.setattr(listing, "_MOST_BYTES", 10_000)
    assert "its listing has more than 10.0 kB" in listed(
        lambda path: (200, link(path), json.dumps([ENTRY] * 9).encode())
    )
    assert NO_LISTING in listed((200, link("http://[::1"), b"[]"))
    assert "that is no http or https address" in listed((200, link("file:///etc/passwd"), b"[]"))
    number = itertools.count()

    def endless(path: str) -> Reply:
        return 200, link(f"{path.partition('&')[0]}&cursor={next(number)}"), b"[]"

    monkeypatch.setattr(listing, "_MOST_PAGES", 20)
    assert "its listing doesn't end within 20 pages or 120 s" in listed(endless)
    assert next(number) == 19
    monkeypatch.setattr(listing, "_MOST_PAGES", 1_000_000)
    monkeypatch.setattr(listing, "_WHOLE_LIMIT_S", 0.3)
    assert "its listing doesn't end within 1,000,000 pages or 0.3 s" in listed(endless)
    monkeypatch.setattr(listing, "_MOST_BYTES", 1000)
    assert "its listing has more than 1.0 kB" in listed((200, {}, b" " * 1001))


def test_a_listing_that_drips_or_never_comes_is_given_up(
    listed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LIMIT_S", 0.3)
    assert listed((200, {}, itertools.repeat(b" "))).endswith(": no answer in 0.3 s")
    silence = itertools.chain([b"["], iter(lambda: time.sleep(1) or b"", None))
    assert "no answer" in listed((200, {"Content-Length": "9"}, silence))


@pytest.mark.parametrize(
    ("asked", "then"),
    [("604800", "try again in 604800 s"), ("9" * 400, "503 Service Unavailable"), ("٣", "503 ")],
)
def test_a_wait_of_days_is_left_to_the_user(
    listed: Callable[..., str], monkeypatch: pytest.MonkeyPatch, asked: str, then: str
) -> None:
    monkeypatch.setattr(asking, "_WAITS_S", (0.0, 0.0))
    retry_after = {"Retry-After": asked.encode().decode("latin-1")}
    assert then in listed((503, retry_after, b""))


CONTENT = b"x" * 200_000


def part(first: int, last: int, total: object = len(CONTENT), body: Any = None) -> Reply:
    said = {"Content-Range": f"bytes {first}-{last}/{total}"}
    return 206, said, CONTENT[first : last + 1] if body is None else body


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (part(0, 0), "the server answered bytes 0-98303 with bytes 0-0/200000: download"),
        (part(0, 98_303, "9" * 5000), "the server answered bytes 0-98303 with bytes 0-98303/999"),
        (part(0, 98_303, body=itertools.repeat(b"x")), "no answer in "),
        ((416, {}, b""), "the server answered bytes 0-98303 with no Content-Range: download"),
        ((416, {"Content-Range": "bytes */5000"}, b""), "bytes 0-98303 with bytes */5000"),
        ((302, {"Location": "http://[::1"}, b""), "can't be read: "),
        ((302, {"Location": "http://a:99999999/"}, b""), "can't be read: "),
        ((429, {"Retry-After": "9" * 400}, b""), "429 Too Many Requests: try again later"),
        ((503, {"Retry-After": "86400"}, b""), "503 Service Unavailable: try again in 86400 s"),
    ],
)
def test_a_part_that_is_none_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, reply: Reply, expected: str
) -> None:
    monkeypatch.setattr(asking, "_WAITS_S", (0.0, 0.0))
    monkeypatch.setattr(byte_ranges, "LIMIT_S", 0.3)
    monkeypatch.setattr(byte_ranges, "_LEAST_RATE", 1 << 30)
    with odd_server(lambda *_: reply) as url:
        assert expected in failure(lambda: read_url_header(f"{url}/m.gguf"))


def test_many_short_parts_are_as_good_as_a_long_one(tmp_path: Path) -> None:
    content = write_llama(tmp_path / "m.gguf", **{"general.description": "x" * 9000}).read_bytes()

    def answer(_: str, asked: str) -> Reply:
        first = int(asked.removeprefix("bytes=").partition("-")[0])
        body = content[first : first + 5000]
        return part(first, first + len(body) - 1, len(content), body)

    with odd_server(answer) as url:
        assert read_url_header(f"{url}/m.gguf").metadata["general.description"] == "x" * 9000


@pytest.mark.parametrize("url", ["http://[::1/m.gguf", "http:///m.gguf", "m.gguf", ""])
def test_what_is_no_address_is_said_to_be_none(url: str) -> None:
    assert "is no address of a file" in failure(lambda: byte_ranges.RemoteFile(url))


def test_only_what_may_pass_is_asked_again() -> None:
    def broke(error: Exception) -> bool:
        return web._unanswered("http://x", error).broke

    assert broke(ConnectionResetError())
    assert not broke(ConnectionRefusedError())
    assert not broke(ssl.SSLCertVerificationError())
    assert not broke(TimeoutError())


@pytest.mark.parametrize("content", ["hf_\0x", "hf_ü", "hf_\x1b[2J"])
def test_a_token_that_is_none_is_neither_sent_nor_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "token"
    path.write_text(content, encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(path))
    line = failure(lambda: identity(file_url("o/r", "m.gguf")))
    assert line == f"{path} holds characters that no token has: copy the token anew"
    assert identity("https://elsewhere.example/m.gguf") == {}
    monkeypatch.setenv("HF_TOKEN", "hf_ü")
    assert failure(lambda: identity(file_url("o/r", "m.gguf"))).startswith("HF_TOKEN holds ")


def test_a_token_file_that_cannot_be_read_shuts_out_of_nothing_public(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"\xff\xfe")
    for unreadable in (path, tmp_path):
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(unreadable))
        assert identity(file_url("o/r", "m.gguf")) == {}


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9", "ftp://x", "https://", "mirror"])
def test_an_endpoint_that_is_no_address_is_named(
    monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    line = failure(lambda: check_reachable("m"))
    assert line.startswith(f"HF_ENDPOINT is {endpoint.rstrip('/')}, and must begin with https://")
