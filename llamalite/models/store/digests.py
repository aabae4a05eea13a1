"""Digests of files: of one that lies there, or of one that is copied. Imports `libs` alone."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from llamalite.libs.transfer.expected import Expected

_BLOCK_BYTES = 1 << 20


def file_digest(path: Path, expected: Expected | None = None) -> str:
    """Return a file's digest, of the kind that is expected, else its SHA-256, in hexadecimal."""
    digest = (expected or Expected()).hasher()
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def copy_file(source: Path, target: Path) -> str:
    """Copy a file until it is on the disk, and return its SHA-256; the target must not exist."""
    digest = hashlib.sha256()
    with open(source, "rb") as reading, open(target, "xb") as writing:
        while block := reading.read(_BLOCK_BYTES):
            digest.update(block)
            writing.write(block)
        writing.flush()
        os.fsync(writing.fileno())
    return digest.hexdigest()
