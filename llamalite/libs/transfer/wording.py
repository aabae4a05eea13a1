"""Text and amounts, made fit for a line that a person reads.

Owns what is left out of text from elsewhere (control characters, passwords, excess) and how sizes
are written. Imports the standard library alone.
"""

from __future__ import annotations

import re

_PASSWORD = re.compile(r"//[^/?#\s]*@")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)
_QUERY = re.compile(r"[?#]")


def printable(text: str) -> str:
    """Return text with line ends and control characters escaped: it can't drive a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(text: object, most: int = 200) -> str:
    """Return text fit for a part of a message: no control characters, not long."""
    plain = "".join(char if char.isprintable() else " " for char in str(text))
    plain = " ".join(plain.split())
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def without_login(url: str) -> str:
    """Return a URL, with or without its scheme, less what may be secret: login and query.

    A password may hold any character, so everything before the last `@` is taken for the login.
    """
    found = _SCHEME.match(url)
    scheme = found[0] if found else ""
    login, at, host = url[len(scheme) :].rpartition("@")
    if _QUERY.search(login):  # the @ may be a query's
        return f"{scheme}…"
    return scheme + ("…@" if at else "") + _QUERY.split(host, maxsplit=1)[0]


def without_password(text: str) -> str:
    """Return text with what stands before the host masked in each of its URLs.

    For text that holds addresses among other things; `without_login` is surer for one alone.
    """
    return _PASSWORD.sub("//…@", text)


def size_text(n_bytes: int) -> str:
    """Return a number of bytes for people: 98.4 MB."""
    for limit, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if abs(n_bytes) >= limit:
            return f"{n_bytes / limit:.1f} {unit}"
    return f"{n_bytes} bytes"
