"""Gets libllama onto this machine: from the first source that works, complete or not at all.

Owns the order of events: offline check, sources in turn, temporary folder, checks, record, rename.
Doesn't know how a source works. Imports `llamalite.config`, `llamalite.errors` and the modules
beside it; network libraries only inside functions.
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

from llamalite import config
from llamalite.errors import DownloadError, LibraryError, Offline
from llamalite.libs.binaries import recognise
from llamalite.libs.download import say_on_stderr
from llamalite.libs.find import (
    RECORD_FORMAT,
    Installed,
    find_library,
    libs_folder,
    read_installed,
)
from llamalite.libs.folder import RECORD_NAME, LibraryFiles, scan_folder
from llamalite.libs.inspect import check_loadable
from llamalite.libs.platforms import Platform, current_platform
from llamalite.libs.releases import PINNED, ReleaseTable
from llamalite.libs.sources import SOURCES, Fetch, NpmFetch, plan

_STAGING_PREFIX = ".fetch-"
_ABANDONED_AFTER_S = 24 * 3600.0


def ensure_library(say: Callable[[str], None] | None = None) -> LibraryFiles:
    """Return the libllama to use, fetching the pinned release if there is none.

    Args:
        say: takes lines for a person; None for stderr.

    Raises:
        LibraryNotFound, LibraryIncompatible: `LLAMALITE_LIB` points at nothing usable, or this
            platform has no libllama.
        Offline: one would have to be fetched, and network use is off.
        DownloadError: no source could give one.
    """
    return find_library() or install(say=say).scan()


def install(
    backend: str = "cpu",
    release: str | None = None,
    platform: Platform | str | None = None,
    dest: Path | None = None,
    sources: Sequence[str] = SOURCES,
    say: Callable[[str], None] | None = None,
    table: ReleaseTable = PINNED,
) -> Installed:
    """Install a build, from the first source that can give it.

    Args:
        backend: `cpu`, `vulkan`, `cuda`, … as far as it is published for the platform.
        release: the pinned release's tag, or `npm:VERSION`; None for the pinned one.
        platform: which to fetch for (`linux-arm64`); None for this one.
        dest: folder to make, instead of one under `LLAMALITE_HOME`.
        sources: names of the sources to try, in order.
        say: takes lines for a person; None for stderr, with a bar on a terminal.
        table: what is known of the pinned release.

    Raises:
        Offline: network use is off; says what would have been fetched.
        LibraryNotFound, LibraryIncompatible: nothing is published for that platform and backend.
        ChecksumMismatch: the only source gave something else than was pinned.
        DownloadError: every source failed; says why for each.
    """
    tell = say or say_on_stderr
    wanted = platform if isinstance(platform, Platform) else None
    if wanted is None:
        wanted = Platform.parse(platform) if isinstance(platform, str) else current_platform()
    ways = plan(table, release, wanted, backend, sources)
    place = _Place(dest.absolute() if dest is not None else None, wanted)
    for way in ways:
        present = place.present(way)
        if present is not None:
            tell(f"libllama {present.release} is already in {present.folder}")
            return present
    if config.is_offline():
        raise _offline(ways)
    try:
        return _first_that_works(ways, place, table, say)
    except OSError as error:
        raise DownloadError(
            f"libllama can't be installed in {place.parent}: {error.strerror or error}: free some "
            f"space there or set LLAMALITE_HOME to another folder"
        ) from None


def fetch_npm(
    package: str, version: str, dest: Path, say: Callable[[str], None] | None = None
) -> LibraryFiles:
    """Fetch one npm package's libraries into a new folder, without recording an install.

    Args:
        package: such as `@node-llama-cpp/linux-x64`.
        version: exact version.
        dest: folder that doesn't exist yet; it appears complete or not at all.
        say: takes lines for a person; None for stderr.

    Raises:
        Offline, DownloadError: it can't be fetched.
        LibraryNotFound, LibraryIncompatible: the package holds no libllama.
    """
    way = NpmFetch(package, version, None, backend="")
    if config.is_offline():
        raise _offline([way])
    problem = way.problem()
    if problem is not None:
        raise DownloadError(f"{way.origin} can't be fetched: {problem}")
    (say or say_on_stderr)(f"fetching {way.describe()}")
    with _staging(dest.absolute().parent) as folder:
        way.fetch(folder, say)
        scan_folder(folder)
        os.rename(folder, dest)
    return scan_folder(dest)


class _Place:
    """Where builds for one platform are put, and what is there."""

    def __init__(self, dest: Path | None, platform: Platform) -> None:
        self.dest, self.platform = dest, platform
        self.parent = dest.parent if dest is not None else libs_folder()

    def folder(self, release: str, backend: str) -> Path:
        return self.dest or self.parent / f"{release}-{backend}-{self.platform}"

    def present(self, way: Fetch) -> Installed | None:
        """Return the complete install that a fetch would only repeat.

        Raises:
            DownloadError: the folder asked for holds something else.
        """
        if self.dest is not None and self.dest.exists():
            there = read_installed(self.dest)
            if there is None and (not self.dest.is_dir() or any(self.dest.iterdir())):
                raise DownloadError(
                    f"{self.dest} is in use and no install of llamalite: give a new or empty folder"
                )
        if way.release is None:
            return None
        there = read_installed(self.folder(way.release, way.backend))
        asked = (way.release, way.backend, str(self.platform))
        if there is not None and (there.release, there.backend, there.platform) == asked:
            return there
        return None


def _first_that_works(
    ways: Sequence[Fetch],
    place: _Place,
    table: ReleaseTable,
    say: Callable[[str], None] | None,
) -> Installed:
    tell = say or say_on_stderr
    failures: list[tuple[Fetch, str]] = []
    for way in ways:
        problem = way.problem()
        error: Exception | None = None
        if problem is None:
            tell(f"fetching {way.describe()}")
            try:
                return _install_from(way, place, table, say)
            except (DownloadError, LibraryError) as failure:
                error, problem = failure, str(failure)
        if error is not None and len(ways) == 1:
            raise error
        failures.append((way, problem))
        if len(failures) < len(ways):
            tell(f"{way.label} failed ({problem}); trying {ways[len(failures)].label}")
    reasons = "; ".join(f"{way.label}: {problem}" for way, problem in failures)
    raise DownloadError(
        f"libllama could not be fetched from any source ({reasons}): see to one of them, or point "
        f"LLAMALITE_LIB at a folder with libllama"
    )


def _install_from(
    way: Fetch, place: _Place, table: ReleaseTable, say: Callable[[str], None] | None
) -> Installed:
    tell = say or say_on_stderr
    with _staging(place.parent) as folder:
        way.fetch(folder, say)
        try:
            files = scan_folder(folder)
            notes = _check(files, place.platform)
        except LibraryError as error:  # said without the temporary folder, which will be gone
            raise type(error)(str(error).replace(f"{folder}{os.sep}", "")) from None
        for note in notes:
            tell("note: " + note.replace(f"{folder}{os.sep}", ""))
        release = way.release or table.build_tag(files.release or way.origin.rpartition("@")[2])
        final = place.folder(release, way.backend)
        _write_record(folder, way, release, place.platform)
        _move_into_place(folder, final)
    installed = read_installed(final)
    if installed is None:
        raise DownloadError(f"{final} was changed while it was installed: run the install again")
    tell(f"libllama {release} ({way.backend}, {place.platform}) is installed in {final}")
    return installed


def _check(files: LibraryFiles, platform: Platform) -> list[str]:
    """Check as much as can be told here; all of it where the build is for this platform."""
    if platform == current_platform():
        return check_loadable(files)
    for path in (*files.core, *files.backends):
        kind = recognise(path)
        if kind.os != platform.os or platform.arch not in kind.arches:
            raise DownloadError(f"{path.name} is for {kind} and {platform} was asked for")
    return []


def _write_record(folder: Path, way: Fetch, release: str, platform: Platform) -> None:
    record = {
        "format": RECORD_FORMAT,
        "release": release,
        "backend": way.backend,
        "platform": str(platform),
        "source": way.source,
        "origin": way.origin,
        "installed_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
    }
    with open(folder / RECORD_NAME, "w", encoding="utf-8") as stream:
        json.dump(record, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def _staging(parent: Path) -> Iterator[Path]:
    """Make an empty folder beside the final place, under a name that nothing looks at."""
    parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(parent)
    scratch = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=parent))
    try:
        folder = scratch / "lib"
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Remove what installs that were killed left behind, long enough ago to be no one's."""
    for path in parent.glob(f"{_STAGING_PREFIX}*"):
        try:
            if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue


def _move_into_place(folder: Path, final: Path) -> None:
    """Rename a complete folder, unless another process has put the same build there meanwhile."""
    try:
        os.rename(folder, final)
        return
    except OSError:
        if not final.exists():
            raise
    ours, theirs = read_installed(folder), read_installed(final)
    if ours is None or theirs is None or not ours.is_same_build(theirs):
        os.rename(final, folder.parent / "replaced")
        os.rename(folder, final)


def _offline(ways: Sequence[Fetch]) -> Offline:
    setting = next(
        (name for name in ("LLAMALITE_OFFLINE", "HF_HUB_OFFLINE") if os.environ.get(name)),
        "LLAMALITE_OFFLINE",
    )
    wanted = ", or ".join(way.describe() for way in ways)
    return Offline(
        f"network use is off ({setting}) and there is no libllama yet; this would have been "
        f"fetched: {wanted}; point LLAMALITE_LIB at a folder with libllama, or run "
        f"scripts/fetch_libllama.py --dest FOLDER where there is a network and copy the folder here"
    )
