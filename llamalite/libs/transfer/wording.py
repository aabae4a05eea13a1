"""Text from elsewhere, made fit for a line that a person reads.

Owns what is left out of it: control characters, passwords, excess. Imports the standard library
alone.
"""

from __future__ import annotations

import re

_PASSWORD = re.compile(r"//[^/?#\s]*@")


def printable(text: str) -> str:
    """Return text with line ends and control characters escaped: it can't drive a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(text: object, most: int = 200) -> str:
    """Return text fit for a part of a message: no control characters, not long."""
    plain = "".join(char if char.isprintable() else " " for char in str(text))
    plain = " ".join(plain.split())
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def without_password(text: str) -> str:
    """Return text with what stands before the host masked in each of its URLs."""
    return _PASSWORD.sub("//…@", text)
