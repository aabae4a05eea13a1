"""Whether a host answers at all, told within seconds.

Owns the one probe made before any client is called that would retry for half a minute. Doesn't
know what is fetched afterwards. Imports the standard library alone, and its network parts only
when a probe is made.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from dataclasses import dataclass

LIMIT_S = 3.0
"""Longest time one probe may take, name look-up included."""

_DEFAULT_PORTS = {"https": 443, "http": 80, "socks5": 1080, "socks5h": 1080, "socks4": 1080}
_FAILURE_KEPT_S = 60.0
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
    except ValueError:
        route = None
    if route is None:
        return f"{url} is not a URL with a host"
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


def _route(url: str, proxy: str | None) -> _Route | None:
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    if not parts.hostname or parts.scheme not in ("http", "https"):
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = f"{host}:{parts.port or _DEFAULT_PORTS[parts.scheme]}"
    if proxy is None:
        proxies = getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
        if proxy and proxy_bypass(place):
            proxy = ""
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    if proxy and not urlsplit(proxy).hostname:
        return None
    return _Route(f"{parts.scheme}://{place}", proxy)


def _in_time(route: _Route, timeout_s: float) -> str | None:
    """Probe in a thread of its own: a name look-up can't be given a limit, a wait can."""
    answer: list[str | None] = []
    # A proxy that isn't spoken to in plain HTTP is only connected to.
    connects = bool(route.proxy) and not route.proxy.startswith("http:")
    probe = _connect if connects else _ask
    thread = threading.Thread(
        target=lambda: answer.append(probe(route, timeout_s)),
        name="llamalite-probe",
        daemon=True,
    )
    thread.start()
    thread.join(timeout_s)
    return answer[0] if answer else f"no answer in {timeout_s:g} s"


def _connect(route: _Route, timeout_s: float) -> str | None:
    try:
        with socket.create_connection(route.proxy_place, timeout_s):
            return None
    except OSError as error:
        return _plainly(error, timeout_s)


def _ask(route: _Route, timeout_s: float) -> str | None:
    import http.client
    import urllib.request
    from urllib.error import HTTPError, URLError

    class NoRedirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    proxies = dict.fromkeys(("http", "https"), route.proxy) if route.proxy else {}
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler(proxies),
        urllib.request.HTTPSHandler(context=_any_certificate()),
        NoRedirects,
    )
    request = urllib.request.Request(
        f"{route.origin}/", method="HEAD", headers={"User-Agent": "llamalite"}
    )
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
    except (http.client.HTTPException, ValueError) as error:
        return f"it can't be asked ({type(error).__name__})"


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
