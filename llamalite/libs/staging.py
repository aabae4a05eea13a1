"""How a build appears in its folder: made beside it, checked, recorded, renamed.

Owns the names of folders, what is left of installs that were killed, and the rename. Doesn't know
where the files come from. Imports the standard library, `llamalite.errors` and the modules beside
it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from llamalite.errors import DownloadError
from llamalite.libs.files.folder import RECORD_NAME, read_json
from llamalite.libs.find import (
    RECORD_FORMAT,
    SCRATCH_PREFIX,
    Installed,
    libs_folder,
    read_installed,
)
from llamalite.libs.lock import install_lock
from llamalite.libs.platforms import Platform
from llamalite.libs.sources.plan import Fetch, Way

_ABANDONED_AFTER_S = 24 * 3600.0


class Place:
    """Where builds for one platform are put, and what is there.

    Attributes:
        dest: the one folder asked for, or None for one per build under `LLAMALITE_HOME`.
        parent: the folder it lies in; lock, scratch and partial downloads are there too.
        cache: where partial downloads are kept until an install succeeds.
    """

    def __init__(self, dest: Path | None, platform: Platform) -> None:
        self.dest, self.platform = dest, platform
        self.parent = dest.parent if dest is not None else libs_folder()
        self.cache = self.parent / (".downloads" if dest is None else ".llamalite-downloads")

    def folder(self, release: str, backend: str, source: str) -> Path:
        """Return where a build goes; what nobody vouches for never gets a published one's name."""
        mark = "-local" if source == "local" else ""
        return self.dest or self.parent / f"{release}-{backend}-{self.platform}{mark}"

    def present(self, way: Way) -> Installed | None:
        """Return the complete install that a fetch would only repeat."""
        if way.release is None or way.source == "local":
            return None
        there = read_installed(self.folder(way.release, way.backend, way.source))
        asked = (way.release, way.backend, str(self.platform))
        if there is not None and (there.release, there.backend, there.platform) == asked:
            return there
        return None

    def check_free(self, ways: Sequence[Way]) -> None:
        """Refuse a folder that holds something else than one of these builds, or a damaged one.

        Raises:
            DownloadError: it does; says what.
        """
        if self.dest is None or not self.dest.exists():
            return
        there = read_installed(self.dest)
        if there is None:
            ours = "format" in read_json(self.dest / RECORD_NAME)
            if not ours and (not self.dest.is_dir() or any(self.dest.iterdir())):
                raise DownloadError(
                    f"{self.dest} is in use and no install of llamalite: give a new or empty folder"
                )
        elif not any(self.present(way) for way in ways):
            raise DownloadError(
                f"{self.dest} holds libllama {there.release} ({there.backend}, {there.platform}) "
                f"already: give another folder, or remove this one first"
            )

    @contextmanager
    def errors_named(self) -> Iterator[None]:
        """Turn the system's complaints about the place into one line."""
        try:
            yield
        except OSError as error:
            remedy = "choose another --dest" if self.dest else "set LLAMALITE_HOME elsewhere"
            place = self.dest or self.parent
            raise DownloadError(
                f"libllama can't be installed in {place}: {error.strerror or error}: make room or "
                f"give the right to write there, or {remedy}"
            ) from None

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Make an empty folder beside the final place, under a name that nothing looks at."""
        scratch = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=self.parent))
        try:
            folder = scratch / "lib"
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def put(self, folder: Path, way: Fetch, release: str, backend: str) -> Installed:
        """Record a checked folder from `staging`, and rename it to where it belongs."""
        final = self.folder(release, backend, way.source)
        _write_record(folder, way, release, backend, self.platform)
        _move_into_place(folder, final, always=way.source == "local")
        installed = read_installed(final)
        if installed is None:
            raise DownloadError(f"{final} was changed while it was installed: do it again")
        return installed

    def drop_downloads(self) -> None:
        """Remove partial downloads, which no later install needs."""
        shutil.rmtree(self.cache, ignore_errors=True)


@contextmanager
def held(parent: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Make a folder and hold its lock, with nothing in it that a killed install left behind."""
    parent.mkdir(parents=True, exist_ok=True)
    with install_lock(parent, say) as locked:
        # Whoever made what is there is dead, for the living would hold the lock.
        _remove_abandoned(parent, 0.0 if locked else _ABANDONED_AFTER_S)
        yield


def _remove_abandoned(parent: Path, older_than_s: float) -> None:
    for path in parent.glob(f"{SCRATCH_PREFIX}*"):
        try:
            if not older_than_s or time.time() - path.stat().st_mtime > older_than_s:
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue


def _write_record(folder: Path, way: Fetch, release: str, backend: str, platform: Platform) -> None:
    record = {
        "format": RECORD_FORMAT,
        "release": release,
        "backend": backend,
        "platform": str(platform),
        "source": way.source,
        "origin": way.origin,
        "verified": way.verified,
        "installed_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
    }
    with open(folder / RECORD_NAME, "w", encoding="utf-8") as stream:
        json.dump(record, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())


def _move_into_place(folder: Path, final: Path, *, always: bool) -> None:
    """Rename a complete folder, unless another process has put the same build there meanwhile."""
    try:
        os.rename(folder, final)
        return
    except OSError:
        if not final.exists():
            raise
    ours, theirs = read_installed(folder), read_installed(final)
    if always or ours is None or theirs is None or not ours.is_same_build(theirs):
        os.rename(final, folder.parent / "replaced")
        os.rename(folder, final)
