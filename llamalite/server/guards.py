"""Who may ask: keys, Host headers, web pages of other origins.

Owns what is refused before a resource sees a request. Imports falcon and its siblings.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import falcon

from llamalite.server.problems import refuse

_OPEN_PATHS = frozenset({"/health", "/v1/health", "/ready"})
_METHODS = "GET, POST, OPTIONS"
_HEADERS = "authorization, content-type, x-api-key"
_MAX_AGE_S = "600"


class Keys:
    """Asks for a key, if there are any; they are kept as digests.

    Args:
        keys: those that are good.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._digests = [_digest(key) for key in keys]

    def process_request(self, request: falcon.Request, _response: falcon.Response) -> None:
        """Refuse who shows no key, or a wrong one."""
        if not self._digests or request.method == "OPTIONS" or request.path in _OPEN_PATHS:
            return
        shown = _shown_key(request)
        if shown is None:
            raise _unauthorized("no API key: send one as 'Authorization: Bearer KEY'")
        digest, is_good = _digest(shown), False
        for known in self._digests:  # all of them, so that time tells nothing
            is_good |= hmac.compare_digest(known, digest)
        if not is_good:
            raise _unauthorized("the API key is wrong")


def _shown_key(request: falcon.Request) -> str | None:
    scheme, _, key = (request.get_header("Authorization") or "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    shown: str | None = request.get_header("X-Api-Key")
    return shown


def _unauthorized(message: str) -> Exception:
    return refuse(401, message, kind="authentication_error", code="invalid_api_key")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class Hosts:
    """Answers only to names the server goes by, so that no page can pose as one of its own.

    Args:
        allowed: names without ports; none or "*" = all.
    """

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._allowed = {name.lower() for name in allowed}

    def process_request(self, request: falcon.Request, _response: falcon.Response) -> None:
        """Refuse a foreign Host header."""
        if not self._allowed or "*" in self._allowed:
            return
        host = request.env.get("HTTP_HOST", "")
        if _without_port(host) not in self._allowed:
            raise refuse(
                403, f"the Host {_printable(host)!r} isn't this server's: allow it with "
                "--allowed-host", kind="permission_error", code="host_not_allowed",
            )  # fmt: skip


def _without_port(host: str) -> str:
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.rpartition(":")[0] if host.count(":") == 1 else host


class Origins:
    """Lets web pages of listed origins ask, and refuses what others send.

    Args:
        allowed: origins such as "https://example.org"; "*" = all.
    """

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self._allowed = {origin.rstrip("/").lower() for origin in allowed}

    def process_request(self, request: falcon.Request, response: falcon.Response) -> None:
        """Refuse a page of another origin; answer what browsers ask beforehand."""
        origin = request.get_header("Origin")
        if origin is None:
            return
        is_own = origin.lower() == f"{request.scheme}://{request.env.get('HTTP_HOST', '')}".lower()
        if is_own:
            return
        if not self._allowed & {"*", origin.lower()}:
            raise refuse(
                403, f"pages of {_printable(origin)!r} may not ask: allow them with --cors-origin",
                kind="permission_error", code="origin_not_allowed",
            )  # fmt: skip
        response.set_header("Access-Control-Allow-Origin", "*" if "*" in self._allowed else origin)
        response.append_header("Vary", "Origin")
        if request.method == "OPTIONS":
            response.set_header("Access-Control-Allow-Methods", _METHODS)
            response.set_header("Access-Control-Allow-Headers", _HEADERS)
            response.set_header("Access-Control-Max-Age", _MAX_AGE_S)
            response.status = 204
            response.complete = True


def _printable(text: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text[:100])


def guards_for(config: Any) -> list[Any]:
    """Return the middleware that a SiteConfig asks for."""
    return [Hosts(config.allowed_hosts), Origins(config.cors_origins), Keys(config.api_keys)]
