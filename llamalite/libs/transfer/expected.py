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
        begins: its first bytes, as far as they are known; fewer than a kilobyte.
    """

    n_bytes: int | None = None
    sha256: str | None = None
    git_oid: str | None = None
    begins: bytes = b""

    @property
    def digest(self) -> str:
        """The digest that counts, in lower case; "" where none is known."""
        return (self.sha256 or self.git_oid or "").lower()

    @property
    def kind(self) -> str:
        """What messages call the digest."""
        return "git's sha1" if self.git_oid and not self.sha256 else "sha256"

    def is_met_by(self, n_bytes: int, digest: str) -> bool:
        """Tell whether a file may be the one, as far as that is known."""
        return self.n_bytes in (None, n_bytes) and self.digest in ("", digest)

    def share(self, n_bytes: int) -> str:
        """Return how much of it is here, for people."""
        whole = "" if self.n_bytes is None else f" of {self.n_bytes:,}"
        return f"{n_bytes:,}{whole} bytes"

    def __str__(self) -> str:
        """Return it for people: "the 5 bytes that were expected"."""
        if self.n_bytes is None and self.begins:
            return f"a file that begins with {self.begins.decode('latin-1')!r}"
        wanted = "the file" if self.n_bytes is None else f"the {self.n_bytes:,} bytes"
        digest = f" with {self.kind} {self.digest[:16]}…" if self.digest else ""
        return f"{wanted}{digest} that {'was' if self.n_bytes is None else 'were'} expected"

    def hasher(self) -> _Hash:
        """Return what computes that digest; sha256 where none is known.

        Source: git's "Git Objects": the sha1 of "blob", the length, a zero byte and the content.
        """
        if self.git_oid and not self.sha256:
            return hashlib.sha1(b"blob %d\0" % (self.n_bytes or 0), usedforsecurity=False)
        return hashlib.sha256()
