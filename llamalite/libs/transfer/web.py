"""One HTTP request, within a limit of seconds, and a line for all that can go wrong with it.

Owns certificates, redirects and limits of time and size. Doesn't know what is asked for. Imports
the standard library, `llamalite.errors` and `wording`: `scripts/fetch_libllama.py` runs from a bare
checkout, and the standard library's client honours the system's proxies.
"""

from __future__ import annotations

import base64
import http.client
import ssl
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from llamalite.errors import DownloadError
from llamalite.libs.transfer.wording import one_line, without_password

OPEN_LIMIT_S = 10.0
"""Longest time from a request to its answer's first byte, name look-up and redirects included."""

SMALL_SILENCE_S = 5.0
"""Longest silence of a server that is asked for a small answer."""

INTERRUPT_GRACE_S = 0.3
"""How long a thread that is waited for may still take when the wait is interrupted."""

_ERROR_BYTES = 4096
# What a request raises; OverflowError for a port that is too large.
_FAILURES = (OSError, http.client.HTTPException, ValueError, OverflowError)
_T = TypeVar("_T")


class Unanswered(DownloadError):
    """No answer came, or not all of it.

    Attributes:
        reason: why, in a few words.
    """

    def __init__(self, url: str, reason: str) -> None:
        self.reason = reason
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
) -> http.client.HTTPResponse:
    """Ask for a URL and return the answer, open for reading; the caller closes it.

    Args:
        url: http or https, with a login perhaps; redirects are followed, but never from https to
            http.
        headers: sent to redirects too.
        secrets: headers for the url's own host; redirects to others go without.
        limit_s: longest time to the answer's first byte.
        silence_s: longest silence while it is read; reading raises TimeoutError then.

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
            limit_s, lambda: opener.open(request, timeout=silence_s)
        )
    except HTTPError as error:
        with error:
            body = _start_of(error)
        raise Refused(url, error, body) from None
    except URLError as error:
        raise Unanswered(url, redirects.led_to + short_reason(error.reason)) from None
    except _FAILURES as error:
        raise Unanswered(url, redirects.led_to + short_reason(error)) from None
    return answer


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

    def read() -> bytes:
        with open_url(url, headers, secrets, limit_s, min(SMALL_SILENCE_S, limit_s)) as answer:
            return answer.read(max_bytes + 1)

    try:
        _tls()
        body = within(limit_s, read)
    except _FAILURES as error:
        raise Unanswered(url, short_reason(error)) from None
    if len(body) > max_bytes:
        raise Unanswered(url, f"the answer has over {max_bytes:,} bytes")
    return body


def within(limit_s: float, call: Callable[[], _T]) -> _T:
    """Return what a call returns, or raise TimeoutError when that takes too long.

    The call runs in a thread of its own, because a name look-up can't be given a limit and a
    socket's is for each of its reads. Where it is late, what it returns is closed.

    NOTE: what the call needs of OpenSSL is set up before, in the calling thread: a daemon thread
    that loads certificates while Python exits crashes it. Hence the pause after Ctrl-C, too.
    """
    outcome: list[_T] = []
    failure: list[BaseException] = []
    lock, late = threading.Lock(), threading.Event()

    def run() -> None:
        try:
            result = call()
        except BaseException as error:
            failure.append(error)
            return
        with lock:
            outcome.append(result)
            if late.is_set() and hasattr(result, "close"):
                result.close()

    thread = threading.Thread(target=run, name="llamalite-request", daemon=True)
    thread.start()
    try:
        thread.join(limit_s)
    except KeyboardInterrupt:
        thread.join(INTERRUPT_GRACE_S)
        raise
    finally:
        with lock:
            if not outcome:
                late.set()
    if failure:
        raise failure[0]
    if late.is_set():
        raise TimeoutError(f"no answer in {limit_s:.3g} s")
    return outcome[0]


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
    """Return a URL without its login, and the header that says it instead."""
    parts = urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, {}
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


def short_reason(error: object) -> str:
    """Return an error in a few words, on one line."""
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, TimeoutError):
        return str(error) if "no answer" in str(error) else "no answer"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return one_line(without_password(said))
