"""Parts of files on web servers, read by HTTP Range requests.

Owns how a part is asked for and what of the answer is believed: servers that don't do ranges
(nothing is read from them), answers to other questions, files that change meanwhile. Doesn't know
what the bytes mean. May import `asking`, `refusals`, `libs`, `config` and `errors`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llamalite import config
from llamalite.errors import DownloadError, Offline, Unreachable
from llamalite.libs.transfer.reach import unreachable_reason
from llamalite.libs.transfer.wording import one_line, without_login
from llamalite.models.hub.address import endpoint, is_hub
from llamalite.models.hub.asking import LIMIT_S, PASSING, ask, patiently, seconds_of
from llamalite.models.hub.refusals import reason_of

if TYPE_CHECKING:
    from llamalite.libs.transfer.web import Answer, Refused, Unanswered

_LEAST_BYTES = 4096
"""Shortest part that is taken for an answer where more was asked for, and isn't the file's end."""

_LEAST_RATE = 32 << 10  # bytes a second
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})")
_NONE_OF_IT = re.compile(r"bytes \*/([0-9]{1,15})")


class RemoteFile:
    """A file on a web server, of which parts can be read.

    Attributes:
        url: where it is asked for first.
        name: what messages call it.
        n_bytes: its size; 0 before the first read.
        n_read: bytes of the file that were transferred so far.
        n_requests: questions asked so far; one that is redirected counts once.
    """

    def __init__(self, url: str, name: str | None = None) -> None:
        # Neither credentials nor a signed query belong in messages.
        shown = without_login(url)
        try:
            parts = urlsplit(url)
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            is_address = False
        if not is_address:
            raise DownloadError(f"{shown} is no address of a file: give one that begins https://")
        self.url = url
        self.name = name or shown
        self.n_bytes = 0
        self.n_read = 0
        self.n_requests = 0
        self._where = url
        self._etag: str | None = None

    def read(self, start: int, count: int) -> bytes:
        """Return up to `count` bytes from `start` on; fewer only at the end of the file.

        Raises:
            Offline: network use is switched off.
            Unreachable: the server's host doesn't answer.
            DownloadError: the server refused, doesn't do ranges, is too slow, or sent other than it
                was asked for; or the file changed since the first read.
        """
        if config.is_offline():
            raise Offline(
                f"LLAMALITE_OFFLINE or HF_HUB_OFFLINE forbids reading {self.name}: unset it, or "
                f"give the path of a GGUF file"
            )
        if reason := unreachable_reason(self.url):
            parts = urlsplit(self.url)
            host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
            raise Unreachable(f"{host} can't be reached ({reason})")
        content = b""
        while len(content) < count:
            piece = self._read_some(start + len(content), count - len(content))
            content += piece
            if not piece or start + len(content) >= self.n_bytes:
                break
        return content

    def _read_some(self, start: int, count: int) -> bytes:
        """Return some bytes, trying again what may pass."""
        from llamalite.libs.transfer.web import Refused, Unanswered

        try:
            return patiently(lambda: self._ask(start, count))
        except Refused as refusal:
            headers = refusal.headers
            if refusal.status == 416:
                return self._none_of_it(headers.get("Content-Range"), start, count)
            passes = refusal.status in PASSING and seconds_of(headers.get("Retry-After")) is None
            failure: Refused | Unanswered = refusal
        except Unanswered as silence:
            failure, passes = silence, silence.broke
        reason = reason_of(failure, self._repo)
        raise self._failure(reason + ": try again later" * passes) from failure

    def _ask(self, start: int, count: int) -> bytes:
        from llamalite.libs.transfer.web import Refused

        self.n_requests += 1
        wanted = {"Range": f"bytes={start}-{start + count - 1}"}
        try:
            answer = ask(self._where, count, wanted, LIMIT_S + count / _LEAST_RATE)
        except Refused:
            if self._where == self.url:
                raise
            self._where = self.url  # a signed address may have run out
            return self._ask(start, count)
        self.n_read += len(answer.body)
        # The host that a part came from is asked for the next, unless it is the one that may want a
        # login with its address.
        if urlsplit(answer.url).netloc != urlsplit(self.url).netloc.rpartition("@")[2]:
            self._where = answer.url
        return self._part(answer, start, count)

    def _part(self, answer: Answer, start: int, count: int) -> bytes:
        """Return the body of an answer, once its headers say that it is what was asked for."""
        from llamalite.libs.transfer.web import Unanswered

        if answer.status == 200:
            raise self._failure(
                "the server only sends whole files (it doesn't do HTTP Range requests): "
                "download the model to look at it"
            )
        said = answer.headers.get("Content-Range")
        found = _CONTENT_RANGE.fullmatch((said or "").strip())
        first, last, n_bytes = map(int, found.groups()) if found else (-1, -1, -1)
        stop = min(start + count, n_bytes)
        if first != start or not min(start + _LEAST_BYTES, stop) <= last + 1 <= stop:
            raise self._otherwise(said, start, count)
        etag = answer.headers.get("ETag")
        if self.n_bytes and (n_bytes != self.n_bytes or etag != self._etag):
            raise self._failure("the file changed while it was read: try again")
        self.n_bytes, self._etag = n_bytes, etag
        expected = last - first + 1
        if len(answer.body) < expected:
            reason = f"it sent {len(answer.body):,} of {expected:,} bytes"
            raise Unanswered(self.name, reason, broke=True)
        return answer.body[:expected]

    def _none_of_it(self, said: str | None, start: int, count: int) -> bytes:
        """Return nothing, once an answer says that the file ends before what was asked for."""
        found = _NONE_OF_IT.fullmatch((said or "").strip())
        if found is None or int(found[1]) > start:
            raise self._otherwise(said, start, count)
        self.n_bytes = int(found[1])
        return b""

    @property
    def _repo(self) -> str | None:
        """The repository, if the file is one of the Hub's."""
        if not is_hub(self.url):
            return None
        return self.url.partition("/resolve/")[0].removeprefix(endpoint()).strip("/")

    def _otherwise(self, said: str | None, start: int, count: int) -> DownloadError:
        answered = one_line(said) if said else "no Content-Range"
        return self._failure(
            f"the server answered bytes {start}-{start + count - 1} with {answered}: download the "
            f"model to look at it"
        )

    def _failure(self, reason: str) -> DownloadError:
        return DownloadError(f"{self.name} can't be read: {reason}")
