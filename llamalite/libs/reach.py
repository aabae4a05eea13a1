"""Whether a host answers at all, told within seconds.

Owns the one probe made before any client is called that would retry for half a minute. Doesn't
know what is fetched afterwards. Imports the standard library alone, and its URL parts only when a
probe is made.
"""

from __future__ import annotations

import socket
import threading
import time

_DEFAULT_PORTS = {"https": 443, "http": 80, "socks5": 1080, "socks5h": 1080, "socks4": 1080}

_FAILURE_KEPT_S = 60.0

_answers: dict[tuple[str, int], tuple[float, str | None]] = {}
_answers_lock = threading.Lock()


def unreachable_reason(url: str, timeout_s: float = 3.0) -> str | None:
    """Say why a URL's host can't be reached, or None if it takes connections.

    One TCP connection, to the proxy where `HTTPS_PROXY` and its like (less `NO_PROXY`) ask for
    one. The answer is kept per host and port: a good one for this process's life, a bad one for
    a minute, so that a program which was offline once can fetch later.

    Args:
        url: of any path on the host; http or https.
        timeout_s: limit for everything together, name look-up included.
    """
    target = _target(url)
    if target is None:
        return f"{url} is not a URL with a host"
    host, port, said = target
    with _answers_lock:
        asked, known = _answers.get((host, port), (0.0, ""))
        if known is None or (known and time.monotonic() - asked < _FAILURE_KEPT_S):
            return known
    reason = _probe(host, port, timeout_s)
    if reason is not None and said:
        reason = f"{said} {host}:{port}: {reason}"
    with _answers_lock:
        _answers[host, port] = (time.monotonic(), reason)
    return reason


def forget_answers() -> None:
    """Forget all answers, so that the next question probes again."""
    with _answers_lock:
        _answers.clear()


def _target(url: str) -> tuple[str, int, str] | None:
    """Host and port to connect to, and what to call them where they are a proxy's."""
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    try:
        parts = urlsplit(url)
        if not parts.hostname:
            return None
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 443)
        proxies = getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all")
        if not proxy or proxy_bypass(f"{parts.hostname}:{port}"):
            return parts.hostname, port, ""
        via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if not via.hostname:
            return None
        return via.hostname, via.port or _DEFAULT_PORTS.get(via.scheme, 80), "proxy"
    except ValueError:
        return None


def _probe(host: str, port: int, timeout_s: float) -> str | None:
    """Connect in a thread of its own: a name look-up can't be given a limit, a wait can."""
    answer: list[str | None] = []
    thread = threading.Thread(
        target=lambda: answer.append(_connect(host, port, timeout_s)),
        name="llamalite-probe",
        daemon=True,
    )
    thread.start()
    thread.join(timeout_s)
    return answer[0] if answer else f"no answer in {timeout_s:g} s"


def _connect(host: str, port: int, timeout_s: float) -> str | None:
    deadline = time.monotonic() + timeout_s
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return "name not found"
    reason = "no address"
    for family, kind, protocol, _name, address in addresses:
        left = deadline - time.monotonic()
        if left <= 0:
            return f"no answer in {timeout_s:g} s"
        try:
            with socket.socket(family, kind, protocol) as connection:
                connection.settimeout(left)
                connection.connect(address)
                return None
        except TimeoutError:
            reason = f"no answer in {timeout_s:g} s"
        except ConnectionRefusedError:
            reason = "refused"
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
    return reason
