"""One HTTP request, within a limit of seconds, and a line for all that can go wrong with it.

Owns certificates, redirects and limits of time and size. Doesn't know what is asked for. Imports
the standard library, `llamalite.errors`, `patience` and `wording`: `scripts/fetch_libllama.py` runs
from a bare checkout, and the standard library's client honours the system's proxies.
"""

from __future__ import annotations

import base64
import http.client
import ssl
import string
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from functools import lru_cache
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from llamalite.errors import DownloadError
from llamalite.libs.transfer.patience import Beat, within
from llamalite.libs.transfer.wording import one_line, without_password

OPEN_LIMIT_S = 10.0
"""Longest time from a request to its answer's first byte, name look-up and redirects included."""

SMALL_SILENCE_S = 5.0
"""Longest silence of a server that is asked for a small answer."""

_ERROR_BYTES = 4096
# What a request raises; OverflowError for a port that is too large.
_FAILURES = (OSError, http.client.HTTPException, ValueError, OverflowError)
_REDIRECTS = {301, 302, 303, 307, 308}
# What may be gone when the same is asked again.
_BROKE = (ConnectionError, http.client.BadStatusLine, http.client.IncompleteRead)


@dataclass(frozen=True)
class Answer:
    """What came back, or the beginning of it.

    Attributes:
        url: which gave it, redirects followed.
        status: of HTTP, below 400.
    """

    url: str
    status: int
    headers: Message
    body: bytes


class Unanswered(DownloadError):
    """No answer came, or not all of it.

    Attributes:
        reason: why, in a few words.
        broke: the connection did, which may pass.
    """

    def __init__(self, url: str, reason: str, broke: bool = False) -> None:
        self.reason, self.broke = reason, broke
        super().__init__(f"{url} can't be fetched ({reason})")


class Refused(DownloadError):
    """The answer was an error.

    Attributes:
        status: HTTP status.
        reason: the words that came with it.
        headers: the answer's.
        body: the start of it.
        led_to: the address that was asked last, redirects followed.
    """

    def __init__(self, url: str, error: HTTPError, body: bytes) -> None:
        self.status, self.headers, self.body = error.code, error.headers, body
        self.reason, self.led_to = one_line(error.reason), error.url
        words = f"{self.status} {self.reason}".strip()
        super().__init__(
            f"{url} answered {words}: see that the address is right and that a mirror has this file"
        )


def open_url(
    url: str,
    headers: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    limit_s: float = OPEN_LIMIT_S,
    silence_s: float = OPEN_LIMIT_S,
    beat: Beat | None = None,
) -> http.client.HTTPResponse:
    """Ask for a URL and return the answer, open for reading; the caller closes it.

    Args:
        url: http or https, with a login perhaps, and quoted or not; redirects are followed, but
            never from https to http.
        headers: sent to redirects too.
        secrets: headers for the url's own host; redirects to others go without.
        limit_s: longest time to the answer's first byte.
        silence_s: longest silence while it is read; reading raises TimeoutError then.
        beat: as in `within`.

    Raises:
        Refused: its status is an error.
        Unanswered: there is none.
    """
    redirects = _Redirects()
    try:
        _check_scheme(url)
        plain, login = _without_login(url)
        redirects.origin, redirects.secrets = _origin(plain), {**(secrets or {}), **login}
        request = Request(plain, headers={"User-Agent": "llamalite", **(headers or {})})
        redirects.add_secrets(request)
        opener = build_opener(redirects, HTTPSHandler(context=_tls()))
        answer: http.client.HTTPResponse = within(
            limit_s, lambda: opener.open(request, timeout=silence_s), beat
        )
    except HTTPError as error:
        with error:
            body = _start_of(error)
        if error.code in _REDIRECTS:
            reason = "it redirects without end, or to no web address"
            raise Unanswered(url, redirects.led_to + reason) from None
        raise Refused(url, error, body) from None
    except URLError as error:
        raise _unanswered(url, error.reason, redirects.led_to) from None
    except _FAILURES as error:
        raise _unanswered(url, error, redirects.led_to) from None
    return answer


def read_answer(
    url: str,
    max_bytes: int,
    headers: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    limit_s: float = OPEN_LIMIT_S,
    silence_s: float = OPEN_LIMIT_S,
) -> Answer:
    """Return an answer with at most `max_bytes` of its body, within `limit_s` however it drips.

    Raises:
        Refused: its status is an error.
        Unanswered: there is none, it broke off, or it is too slow.
    """

    def read() -> Answer:
        with open_url(url, headers, secrets, limit_s, min(silence_s, limit_s)) as answer:
            promised = answer.length
            body = answer.read(max_bytes)
            if promised is not None and len(body) < min(promised, max_bytes):
                raise ConnectionError("the connection was closed")
            return Answer(answer.url, answer.status, answer.headers, body)

    try:
        _tls()
        return within(limit_s, read)
    except _FAILURES as error:
        raise _unanswered(url, error) from None


def read_small(
    url: str,
    max_bytes: int,
    headers: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    limit_s: float = OPEN_LIMIT_S,
) -> bytes:
    """Return the whole of a small answer; as `open_url`, but within `limit_s` however it drips.

    Raises:
        Refused: its status is an error.
        Unanswered: there is none, or it is too slow, or longer than `max_bytes`.
    """
    silence_s = min(SMALL_SILENCE_S, limit_s)
    body = read_answer(url, max_bytes + 1, headers, secrets, limit_s, silence_s).body
    if len(body) > max_bytes:
        raise Unanswered(url, f"the answer has over {max_bytes:,} bytes")
    return body


class _Redirects(HTTPRedirectHandler):
    """Follows redirects and notes where to.

    Attributes:
        led_to: the host that was asked last, as the beginning of a reason; "" for the first one.
        origin: scheme, host and port that the secrets are for.
        secrets: headers.
    """

    led_to = ""
    origin = ("", "")
    secrets: Mapping[str, str] = {}

    def add_secrets(self, request: Request) -> None:
        """Give a request the secrets if it goes to whom they are for."""
        if _origin(request.full_url) == self.origin:
            for name, value in self.secrets.items():
                request.add_unredirected_header(name, value)

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        _check_scheme(newurl)
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise URLError("it redirects to an address that isn't https")
        self.led_to = f"it leads to {one_line(urlsplit(newurl).netloc.rpartition('@')[2])}: "
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None:
            self.add_secrets(request)
        return request


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.lower()


def _without_login(url: str) -> tuple[str, dict[str, str]]:
    """Return a URL quoted and without its login, and the header that says it instead."""
    parts = urlsplit(url)
    path, query = (quote(part, safe=string.punctuation) for part in (parts.path, parts.query))
    parts = parts._replace(path=path, query=query)
    login, at, host = parts.netloc.rpartition("@")
    if not at:
        return urlunsplit(parts), {}
    coded = base64.b64encode(unquote(login).encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), {"Authorization": f"Basic {coded}"}


def _check_scheme(url: str) -> None:
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError("that is no http or https address")


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """The system's trusted certificates, and certifi's where it is installed.

    NOTE: Pythons from python.org on macOS come without any certificates of their own.
    """
    context = ssl.create_default_context()
    try:
        import certifi
    except ImportError:
        return context
    context.load_verify_locations(certifi.where())
    return context


def _start_of(error: HTTPError) -> bytes:
    try:
        return within(2.0, lambda: error.read(_ERROR_BYTES))
    except _FAILURES:
        return b""


def _unanswered(url: str, error: object, led_to: str = "") -> Unanswered:
    broke = isinstance(error, _BROKE) and not isinstance(error, ConnectionRefusedError)
    return Unanswered(url, led_to + short_reason(error), broke)


def short_reason(error: object) -> str:
    """Return an error in a few words, on one line."""
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, TimeoutError):
        return str(error) if "no answer" in str(error) else "no answer"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return one_line(without_password(said))
