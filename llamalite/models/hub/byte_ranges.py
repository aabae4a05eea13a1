"""Parts of files on web servers, read by HTTP Range requests.

Owns how a part is asked for and what of the answer is believed: redirects (the Hub's token stays
with the Hub), servers that don't do ranges (nothing is read from them), short answers, retries.
Doesn't know what the bytes mean. May import `address`, `refusals`, `libs`, `config` and `errors`;
huggingface_hub, whose HTTP client, proxies and token are used, only inside functions.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

from llamalite import config
from llamalite.errors import DownloadError, LlamaliteError, Offline
from llamalite.libs.transfer.reach import unreachable_reason
from llamalite.models.hub.address import endpoint, identity, is_hub
from llamalite.models.hub.refusals import refusal

_ATTEMPTS = 3
_WAITS_S = (0.5, 1.5)
_LONGEST_WAIT_S = 10.0
_SILENCE_S = 10.0
_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_PASSING = {408, 429, 500, 502, 503, 504}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_NONE_OF_IT = re.compile(r"bytes \*/(\d+)")


class _Passing(Exception):
    """What may be gone when it is tried again: a server's error, a cut connection."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        self.wait_s = wait_s
        super().__init__(reason)


class RemoteFile:
    """A file on a web server, of which parts can be read.

    Attributes:
        url: where it is asked for first.
        name: what messages call it.
        n_bytes: its size; 0 before the first read.
        n_read: bytes of the file that were transferred so far, those of failed tries too.
        n_requests: requests made so far, redirects too.
    """

    def __init__(self, url: str, name: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DownloadError(f"{url!r} is no address of a file: give one that begins https://")
        self.url = url
        # Neither credentials nor a signed query belong in messages.
        self.name = name or f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self.n_bytes = 0
        self.n_read = 0
        self.n_requests = 0
        self._where = url
        self._etag: str | None = None

    def read(self, start: int, count: int) -> bytes:
        """Return up to `count` bytes from `start` on; fewer only at the end of the file.

        Raises:
            Offline: network use is switched off.
            DownloadError: the server can't be reached, refused, doesn't do ranges, or sent less
                than it promised; or the file changed since the first read.
        """
        if config.is_offline():
            raise Offline(
                f"LLAMALITE_OFFLINE or HF_HUB_OFFLINE forbids reading {self.name}: unset it, or "
                f"give the path of a GGUF file"
            )
        content = b""
        while len(content) < count:
            piece = self._read_some(start + len(content), count - len(content))
            content += piece
            if not piece or start + len(content) >= self.n_bytes:
                break
        return content

    def _read_some(self, start: int, count: int) -> bytes:
        """Return some bytes, trying again what may pass."""
        for attempt in range(_ATTEMPTS):
            try:
                return self._ask(start, count)
            except _Passing as err:
                wait_s = _WAITS_S[min(attempt, len(_WAITS_S) - 1)]
                wait_s = wait_s if err.wait_s is None else err.wait_s
                if attempt + 1 == _ATTEMPTS or wait_s > _LONGEST_WAIT_S:
                    when = "later" if err.wait_s is None else f"in {err.wait_s:.0f} s"
                    raise self._failure(f"{err}: try again {when}") from err
                time.sleep(wait_s)
                self._where = self.url  # a signed address may have run out
        raise AssertionError("unreachable")

    def _ask(self, start: int, count: int) -> bytes:
        wanted = {"Range": f"bytes={start}-{start + count - 1}", "Accept-Encoding": "identity"}
        with self._answer(wanted) as answer:
            status = answer.status_code
            if status == 206:
                return self._part(answer, start, count)
            if status == 416:
                nothing = _NONE_OF_IT.fullmatch(answer.headers.get("Content-Range", ""))
                self.n_bytes = int(nothing[1]) if nothing else 0
                return b""
            if status == 200:
                raise self._failure(
                    "the server only sends whole files (it doesn't do HTTP Range requests): "
                    "download the model to look at it"
                )
            if self.n_bytes and self._where != self.url and status in (401, 403, 404, 410):
                raise _Passing(_reason(answer, self.url))
            if status in _PASSING:
                raise _Passing(_reason(answer, self.url), _retry_after(answer))
            raise self._failure(_reason(answer, self.url))

    def _part(self, answer: Any, start: int, count: int) -> bytes:
        """Return the body of an answer, once its headers say that it is what was asked for."""
        said = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
        first, last, n_bytes = map(int, said.groups()) if said else (-1, -1, -1)
        if first != start or not start <= last < min(start + count, n_bytes):
            raise self._failure(
                f"the server answered bytes {start}-{start + count - 1} with "
                f"{answer.headers.get('Content-Range') or 'no Content-Range'}: "
                f"download the model to look at it"
            )
        etag = answer.headers.get("ETag")
        if self.n_bytes and (n_bytes != self.n_bytes or etag != self._etag):
            raise self._failure("the file changed while it was read: try again")
        self.n_bytes, self._etag = n_bytes, etag
        expected = last - first + 1
        body = bytearray()
        try:
            for piece in answer.iter_raw():
                body += piece
                if len(body) >= expected:
                    break
        finally:
            self.n_read += len(body)
        if len(body) < expected:
            raise _Passing(f"it sent {len(body):,} of {expected:,} bytes")
        return bytes(body[:expected])

    @contextlib.contextmanager
    def _answer(self, headers: dict[str, str]) -> Iterator[Any]:
        """Lend the answer to a GET, its body unread, after following redirects.

        NOTE: redirects are followed here and not by the client, so that it is plain to see that
        every host gets only what is its own, and where the next part can be had directly.
        """
        from huggingface_hub import get_session

        for _ in range(_MAX_REDIRECTS + 1):
            self._check_reachable()
            with contextlib.ExitStack() as stack:
                try:
                    self.n_requests += 1
                    answer = stack.enter_context(
                        get_session().stream(
                            "GET",
                            self._where,
                            headers={"User-Agent": "llamalite", **headers, **identity(self._where)},
                            follow_redirects=False,
                            timeout=_SILENCE_S,
                        )
                    )
                    target = answer.headers.get("Location")
                    if answer.status_code not in _REDIRECTS or not target:
                        yield answer
                        return
                except (LlamaliteError, _Passing):
                    raise
                # httpx's or httpx2's own classes, which have no common base.
                except Exception as err:
                    raise _Passing(_said(err)) from err
            self._where = urljoin(self._where, target)
            if urlsplit(self._where).scheme not in ("http", "https"):
                raise self._failure("the server sends on to what is no web address")
        raise self._failure(f"the server sends on more than {_MAX_REDIRECTS} times")

    def _check_reachable(self) -> None:
        """Raise DownloadError within seconds if the host doesn't answer."""
        if reason := unreachable_reason(self._where):
            parts = urlsplit(self._where)
            host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
            holds = "" if self._where == self.url else f", which holds {self.name},"
            raise DownloadError(f"{host}{holds} can't be reached ({reason})")

    def _failure(self, reason: str) -> DownloadError:
        return DownloadError(f"{self.name} can't be read: {reason}")


def _retry_after(answer: Any) -> float | None:
    """Return the seconds that the server asks to wait; None where it doesn't, or names a date."""
    said = answer.headers.get("Retry-After", "").strip()
    return float(said) if said.isdecimal() else None


def _reason(answer: Any, url: str) -> str:
    """Say in a few words what a refusal means for the user."""
    repo = None
    if is_hub(url):
        repo = url.partition("/resolve/")[0].removeprefix(endpoint()).strip("/")
    code = answer.headers.get("X-Error-Code", "")
    return refusal(answer.status_code, answer.reason_phrase, code, repo)


def _said(err: Exception) -> str:
    return " ".join(str(err).split())[:200] or type(err).__name__
