"""Whether a host answers at all, told within seconds.

Owns the one probe made before any client is called that would retry for half a minute. Doesn't
know what is fetched afterwards. Imports the standard library and `wording`, and network parts only
when a probe is made.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from llamalite.libs.transfer.wording import without_login

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

LIMIT_S = 3.0
"""Longest time one probe may take, name look-up included."""

_DEFAULT_PORTS = {"https": 443, "http": 80, "socks5": 1080, "socks5h": 1080, "socks4": 1080}
_FAILURE_KEPT_S = 60.0
_INTERRUPT_GRACE_S = 0.3
# What a proxy says of a host it can't or won't reach; a client would go on asking.
_PROXY_REFUSALS = {407, 502, 503, 504}

_answers: dict[_Route, tuple[float, str | None]] = {}
_answers_lock = threading.Lock()


@dataclass(frozen=True)
class _Route:
    """A host and how it is reached.

    Attributes:
        origin: `https://host:port`, without path or credentials.
        proxy: the proxy's URL, or "" for none.
    """

    origin: str
    proxy: str = ""

    @property
    def proxy_place(self) -> tuple[str, int]:
        """The proxy's host and port."""
        from urllib.parse import urlsplit

        parts = urlsplit(self.proxy)
        return parts.hostname or "", parts.port or _DEFAULT_PORTS.get(parts.scheme, 80)


def unreachable_reason(
    url: str, timeout_s: float | None = None, *, proxy: str | None = None
) -> str | None:
    """Say why a URL's host can't be reached, or None if it answers.

    One HEAD request for the host's first page, so that a host which takes connections and then
    stays silent is found out too; through the proxy where `HTTPS_PROXY` and its like (less
    `NO_PROXY`) ask for one. Any status counts as an answer, and so does a certificate that isn't
    trusted: the client that comes next has its own list. Answers are kept per host: a good one for
    this process's life, a bad one for a minute, so that a program which was offline once can fetch
    later.

    Args:
        url: of any path on the host; http or https.
        timeout_s: limit for everything together; None for `LIMIT_S`.
        proxy: the proxy to use; "" for none, None for the environment's.
    """
    try:
        route = _route(url, proxy)
    except _NoAddress as error:
        return str(error)
    with _answers_lock:
        asked, known = _answers.get(route, (0.0, ""))
        if known is None or (known and time.monotonic() - asked < _FAILURE_KEPT_S):
            return known
    reason = _in_time(route, LIMIT_S if timeout_s is None else timeout_s)
    if reason is not None and route.proxy:
        host, port = route.proxy_place
        reason = f"proxy {host}:{port}: {reason}"
    with _answers_lock:
        _answers[route] = (time.monotonic(), reason)
    return reason


def forget_answers() -> None:
    """Forget all answers, so that the next question probes again."""
    with _answers_lock:
        _answers.clear()


class _NoAddress(ValueError):
    """Says what can't be asked because it has no host or no port."""


def _route(url: str, proxy: str | None) -> _Route:
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise _NoAddress(f"{without_login(url)} is not a URL with a host")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = f"{host}:{port or _DEFAULT_PORTS[parts.scheme]}"
    origin = "of the client's own settings"
    if proxy is None:
        proxies = getproxies()
        kind = parts.scheme if proxies.get(parts.scheme) else "all"
        proxy, origin = proxies.get(kind) or "", _variable(kind)
        if proxy and proxy_bypass(place):
            proxy = ""
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    route = _Route(f"{parts.scheme}://{place}", proxy)
    try:
        usable = not proxy or bool(route.proxy_place[0])
    except ValueError:
        usable = False
    if not usable:
        raise _NoAddress(f"the proxy {without_login(proxy)} ({origin}) is no address")
    return route


def _variable(kind: str) -> str:
    """Return the name of the environment variable that sets a kind of proxy."""
    names = (f"{kind}_proxy", f"{kind.upper()}_PROXY")
    return next((name for name in names if os.environ.get(name)), "of this system's settings")


def _in_time(route: _Route, timeout_s: float) -> str | None:
    """Probe in a thread of its own: a name look-up can't be given a limit, a wait can."""
    answer: list[str | None] = []
    # A proxy that isn't spoken to in plain HTTP is only connected to.
    connects = bool(route.proxy) and not route.proxy.startswith("http:")
    # NOTE: made here and not in the thread: OpenSSL is set up for it, and a daemon thread that does
    # so while Python exits crashes it. Hence the pause after Ctrl-C, too.
    opener = None if connects else _opener(route)

    def probe() -> None:
        try:
            reason = _ask(opener, route, timeout_s) if opener else _connect(route, timeout_s)
        except Exception as error:
            reason = f"it can't be asked ({type(error).__name__})"
        answer.append(reason)

    thread = threading.Thread(target=probe, name="llamalite-probe", daemon=True)
    thread.start()
    try:
        thread.join(timeout_s)
    except KeyboardInterrupt:
        thread.join(_INTERRUPT_GRACE_S)
        raise
    return answer[0] if answer else f"no answer in {timeout_s:g} s"


def _connect(route: _Route, timeout_s: float) -> str | None:
    try:
        with socket.create_connection(route.proxy_place, timeout_s):
            return None
    except OSError as error:
        return _plainly(error, timeout_s)


def _opener(route: _Route) -> OpenerDirector:
    from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, build_opener

    class NoRedirects(HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    proxies = dict.fromkeys(("http", "https"), route.proxy) if route.proxy else {}
    https = HTTPSHandler(context=_any_certificate())
    return build_opener(ProxyHandler(proxies), https, NoRedirects)


def _ask(opener: OpenerDirector, route: _Route, timeout_s: float) -> str | None:
    import http.client
    from urllib.error import HTTPError, URLError
    from urllib.request import Request

    request = Request(f"{route.origin}/", method="HEAD", headers={"User-Agent": "llamalite"})
    try:
        opener.open(request, timeout=timeout_s).close()
        return None
    except HTTPError as error:
        error.close()
        if route.proxy and error.code in _PROXY_REFUSALS:
            return f"it answered {error.code} {error.reason}".strip()
        return None
    except http.client.BadStatusLine as error:
        if isinstance(error, OSError):  # RemoteDisconnected
            return "it closed the connection"
        return "it doesn't speak HTTP"
    except URLError as error:
        cause = error.reason
        return _plainly(cause, timeout_s) if isinstance(cause, OSError) else str(cause)
    except OSError as error:
        return _plainly(error, timeout_s)


@lru_cache(maxsize=1)
def _any_certificate() -> ssl.SSLContext:
    # NOTE: nothing is taken from the answer and nothing secret is sent: this asks whether someone
    # is there. Whom to trust is the business of the client that fetches.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _plainly(error: OSError, timeout_s: float) -> str | None:
    """Put a failure into words; None where it shows that someone answers."""
    if isinstance(error, TimeoutError):
        return f"no answer in {timeout_s:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, socket.gaierror):
        return "name not found"
    if isinstance(error, (ssl.SSLEOFError, ConnectionResetError, ConnectionAbortedError)):
        return "it closed the connection"
    if isinstance(error, ssl.SSLError):
        return None  # such as a wish for a client certificate: the client may have one
    return (error.strerror or str(error)).lower()
