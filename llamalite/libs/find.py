"""Which libllama is used: the one pointed at, else one that llamalite installed.

Owns the order of preference, the records of installs and the choice among them. Fetches nothing
and opens nothing. Imports the standard library, `llamalite.config`, `llamalite.errors` and the
readers beside it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from llamalite import config
from llamalite.errors import LibraryError, LibraryNotFound
from llamalite.libs.files.bounded import open_regular
from llamalite.libs.files.folder import RECORD_NAME, LibraryFiles, read_json, scan_folder
from llamalite.libs.files.inspect import check_loadable
from llamalite.libs.platforms import current_platform
from llamalite.libs.sources.releases import PINNED
from llamalite.libs.transfer.wording import printable

RECORD_FORMAT = 1

SCRATCH_PREFIX = ".llamalite-tmp-"
"""Begins the names of folders that nothing but their maker looks at, beside installs."""

Say = Callable[[str], None]

_ACTIVE_MARK = "active"
_MAX_MARK_BYTES = 1 << 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Installed:
    """A complete install.

    Attributes:
        release: upstream's build tag.
        platform: as `linux-x64`.
        source: where it came from: `github`, `npm`, …
        origin: the URL, package or path.
        installed_at: UTC, in ISO 8601.
        active: whether it was chosen over the others.
        verified: how what came was verified; "" in records of before that was kept.
    """

    folder: Path
    release: str
    backend: str
    platform: str
    source: str
    origin: str
    installed_at: str
    active: bool = False
    verified: str = ""

    def is_same_build(self, other: Installed) -> bool:
        """Say whether both hold the same release, backend and platform."""
        mine = (self.release, self.backend, self.platform)
        return mine == (other.release, other.backend, other.platform)

    def scan(self) -> LibraryFiles:
        """Return its files; raises as `scan_folder` does."""
        return scan_folder(self.folder)


def libs_folder() -> Path:
    """Return the folder that installs lie in; it may not exist."""
    return config.home().absolute() / "libs"


def find_library(say: Say | None = None) -> LibraryFiles | None:
    """Return the libllama to use, or None if there is none yet.

    `LLAMALITE_LIB` wins, and what is wrong with it is raised, never passed over. Then come the
    folder marked active, and the installs for this platform: the pinned release, then the newest.
    One that is gone, or can't be loaded here while another is there, is passed over with a warning.

    Args:
        say: takes a line for each that is passed over, and what is used in its place; None to log
            a warning.

    Raises:
        LibraryNotFound, LibraryIncompatible: `LLAMALITE_LIB` points at nothing usable.
    """
    override = config.library_override()
    if override is not None:
        try:
            return scan_folder(override.absolute())
        except LibraryError as error:
            raise type(error)(
                f"LLAMALITE_LIB: {error} (or unset LLAMALITE_LIB to use an installed one)"
            ) from None
    chosen, passed_over = _first_usable()
    follows = f"{chosen.folder} is used" if chosen is not None else "no other is installed"
    for what in passed_over:
        line = printable(f"{what}; {follows}")
        say(line) if say is not None else _log.warning("%s", line)
    return chosen


def _first_usable() -> tuple[LibraryFiles | None, list[str]]:
    """Return the install to use, and what is wrong with those that come before it."""
    passed_over: list[str] = []
    marked = marked_folder()
    candidates = [] if marked is None else [marked]
    if marked is not None and marked.parent == libs_folder() and read_installed(marked) is None:
        passed_over.append(f"the libllama marked active, {marked}, is gone or damaged")
        candidates = []
    here = str(current_platform())
    candidates += [
        installed.folder
        for installed in list_installed()
        if installed.platform == here and installed.folder != marked
    ]
    for folder in candidates:
        try:
            files = scan_folder(folder)
            # PERF: reading what the files need takes 30 ms, and opening them does it anyway.
            if folder == marked or len(candidates) > 1:
                check_loadable(files)
            return files, passed_over
        except LibraryError as error:
            which = "the libllama marked active" if folder == marked else "an installed libllama"
            passed_over.append(f"{which} is passed over: {error}")
    return None, passed_over


def list_installed() -> list[Installed]:
    """Return every complete install under `LLAMALITE_HOME`, the preferred one first."""
    marked = marked_folder()
    found = [read_installed(folder, active=folder == marked) for folder in _folders()]
    installs = [installed for installed in found if installed is not None]
    installs.sort(key=lambda installed: installed.installed_at, reverse=True)
    return sorted(installs, key=lambda item: (not item.active, item.release != PINNED.tag))


def read_installed(folder: Path, *, active: bool = False) -> Installed | None:
    """Read a folder's install record; None if it has none or files are missing or cut short."""
    record = read_json(folder / RECORD_NAME)
    files = record.get("files")
    if record.get("format") != RECORD_FORMAT or not isinstance(files, dict) or not files:
        return None
    for name, n_bytes in files.items():
        try:
            if (folder / name).stat().st_size != n_bytes:
                return None
        except (OSError, ValueError):
            return None
    fields = ("release", "backend", "platform", "source", "origin", "installed_at", "verified")
    values = {field: str(record.get(field, "")) for field in fields}
    return Installed(folder=folder, active=active, **values)


def use_install(name_or_path: str | Path) -> LibraryFiles:
    """Prefer one build over the others from now on, once it is known to be loadable here.

    Args:
        name_or_path: an install's name, or the beginning of it that no other has, or its release;
            or a path to any folder with libllama in it, or to the libllama file.

    Raises:
        LibraryNotFound: there is no such install, there are several, or the folder has no libllama.
        LibraryIncompatible: it can't be loaded on this machine.
        LibraryError: the choice can't be written down.
    """
    folder = find_install(name_or_path)
    files = scan_folder(folder)
    check_loadable(files)
    _write_mark(folder)
    return files


def find_install(name_or_path: str | Path) -> Path:
    """Return the folder (or libllama file) that a name or path means, as `use_install` takes it.

    Raises:
        LibraryNotFound: there is no install of that name, or there are several.
    """
    text = os.path.expanduser(os.fspath(name_or_path))
    is_path = isinstance(name_or_path, Path) or os.path.dirname(text) or text in (".", "..")
    return Path(os.path.abspath(text)) if is_path else _named(text)


def unuse() -> bool:
    """Forget which build is preferred; False if none was.

    Raises:
        LibraryError: the mark can't be removed.
    """
    mark = libs_folder() / _ACTIVE_MARK
    try:
        mark.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise LibraryError(f"{mark} can't be removed: {error.strerror or error}") from None
    return True


def remove_install(name: str) -> Path:
    """Remove an install, complete or damaged, and return the folder it was in.

    It is gone at once for everyone who looks for it; what has it open goes on.

    Args:
        name: the folder's name, or the beginning of it that no other has, or its release.

    Raises:
        LibraryNotFound: there is no such install, or there are several.
        LibraryError: it can't be removed.
    """
    return remove_installs([name])[0]


def remove_installs(names: Sequence[str]) -> list[Path]:
    """Remove several as `remove_install` does; none of them if one of the names is wrong."""
    folders = list(dict.fromkeys(_named(name) for name in names))
    for folder in folders:
        _remove(folder)
    return folders


def _remove(folder: Path) -> None:
    was_active = folder == marked_folder()
    try:
        scratch = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX, dir=folder.parent))
        try:
            os.rename(folder, scratch / folder.name)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise LibraryError(
            f"{folder} can't be removed: {error.strerror or error}: end what uses it and see that "
            f"its folder can be written"
        ) from None
    if was_active:
        unuse()


def marked_folder() -> Path | None:
    """Return the folder (or libllama file) that is preferred, whether it is there or not."""
    folder = libs_folder()
    try:
        with open_regular(folder / _ACTIVE_MARK) as stream:
            text = os.fsdecode(stream.read(_MAX_MARK_BYTES)).removesuffix("\n")
    except (OSError, UnicodeDecodeError):
        return None
    # An absolute path stays as it is.
    return folder / text if text and "\0" not in text else None


def _write_mark(folder: Path) -> None:
    libs = libs_folder()
    text = folder.name if folder.parent == libs else str(folder)
    mark = libs / _ACTIVE_MARK
    fresh = libs / f".{_ACTIVE_MARK}-{os.getpid()}"
    try:
        libs.mkdir(parents=True, exist_ok=True)
        try:
            fresh.write_bytes(os.fsencode(f"{text}\n"))
            os.replace(fresh, mark)
        finally:
            with contextlib.suppress(OSError):
                fresh.unlink()
    except OSError as error:
        raise LibraryError(f"{mark} can't be written: {error.strerror or error}") from None


def _folders() -> list[Path]:
    """Folders of installs, complete or not, by name."""
    try:
        return sorted(
            path for path in libs_folder().iterdir() if path.name[:1] != "." and path.is_dir()
        )
    except OSError:
        return []


def _named(name: str) -> Path:
    """Return the one folder of an install that answers to a name."""
    folders = _folders()
    release = PINNED.build_tag(name)
    fitting = [folder for folder in folders if folder.name == name]
    fitting = fitting or [folder for folder in folders if folder.name.startswith(f"{release}-")]
    fitting = fitting or [folder for folder in folders if name and folder.name.startswith(name)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(folder.name for folder in fitting or folders)
    if fitting:
        raise LibraryNotFound(f"{name} could be any of {names}: give one whole name")
    have = f"there are {names}" if names else f"nothing is installed in {libs_folder()}"
    raise LibraryNotFound(f"there is no install {name}: {have}; a folder's path needs a / in it")
