"""Whether the disk has room for what is to come, and what to do where it can't be written.

Owns the comparison and the words. Imports the standard library, `llamalite.errors` and `wording`.
"""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from llamalite.errors import DownloadError
from llamalite.libs.transfer.wording import size_text

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def more_room(variable: str) -> str:
    """Return what to do about a full disk, as the end of a sentence.

    Args:
        variable: of the environment, which names the folder that is written to.
    """
    return f"free some, or set {variable} to a folder with more"


def unwritable(error: OSError, path: Path, variable: str) -> DownloadError:
    """Return what to say where a file can't be written, whatever the reason.

    Args:
        error: what writing came to.
        path: of the file, where the error itself names none.
        variable: as for `more_room`.
    """
    remedy = f"see to that, or set {variable} to another folder, and try again"
    if error.errno in _FULL:
        remedy = f"{more_room(variable)}, and try again; what arrived is kept"
    reason = error.strerror or error
    return DownloadError(f"{error.filename or path} can't be written ({reason}): {remedy}")


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
            f"{what} needs {size_text(n_bytes)} more in {folder}, where {size_text(n_free)} are "
            f"free: {remedy}"
        )
