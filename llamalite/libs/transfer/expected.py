"""What a file must be: how long, and with which digest.

Owns the two kinds of digest that publishers give. Imports the standard library alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is here.

    Attributes:
        n_bytes: its size, or None where nobody has said it.
        sha256: its digest, in hexadecimal, or None.
        git_oid: what git calls its content, used where there is no `sha256`; needs `n_bytes`.
    """

    n_bytes: int | None = None
    sha256: str | None = None
    git_oid: str | None = None

    @property
    def digest(self) -> str:
        """The digest that counts, in lower case; "" where none is known."""
        return (self.sha256 or self.git_oid or "").lower()

    @property
    def kind(self) -> str:
        """What messages call the digest."""
        return "git's sha1" if self.git_oid and not self.sha256 else "sha256"

    def hasher(self) -> _Hash:
        """Return what computes that digest; sha256 where none is known.

        Source: git's "Git Objects": the sha1 of "blob", the length, a zero byte and the content.
        """
        if self.git_oid and not self.sha256:
            return hashlib.sha1(b"blob %d\0" % (self.n_bytes or 0), usedforsecurity=False)
        return hashlib.sha256()
