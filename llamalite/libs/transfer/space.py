"""Whether the disk has room for what is to come.

Owns the comparison and its words. Imports the standard library and `llamalite.errors`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from llamalite.errors import DownloadError


def check_space(folder: Path, n_bytes: int, what: str, remedy: str) -> None:
    """Refuse a transfer that the disk has no room for.

    Args:
        folder: where it would lie; exists.
        n_bytes: bytes that are still to come.
        what: would come.
        remedy: what to do, as the end of a sentence.

    Raises:
        DownloadError: the disk has less room than that; the message has both numbers.
    """
    try:
        n_free = shutil.disk_usage(folder).free
    except OSError:
        return  # a file system that doesn't say: writing will show it
    if n_bytes > n_free:
        raise DownloadError(
            f"{what} needs {n_bytes:,} more bytes in {folder}, where {n_free:,} are free: {remedy}"
        )
