"""Which libllama is used: the one pointed at, else one that llamalite installed.

Owns the order of preference and the records of installs. Fetches nothing and opens nothing.
Imports the standard library, `llamalite.config`, `llamalite.errors` and the readers beside it.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from llamalite import config
from llamalite.errors import LibraryError
from llamalite.libs.folder import RECORD_NAME, LibraryFiles, read_json, scan_folder
from llamalite.libs.platforms import current_platform
from llamalite.libs.releases import PINNED

RECORD_FORMAT = 1
_ACTIVE_MARK = "active"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Installed:
    """A complete install.

    Attributes:
        release: upstream's build tag.
        platform: as `linux-x64`.
        source: where it came from: `github`, `npm`, …
        origin: the URL or package.
        installed_at: UTC, in ISO 8601.
        active: whether it was chosen over the others.
    """

    folder: Path
    release: str
    backend: str
    platform: str
    source: str
    origin: str
    installed_at: str
    active: bool = False

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


def find_library() -> LibraryFiles | None:
    """Return the libllama to use, or None if there is none yet.

    `LLAMALITE_LIB` wins, and what is wrong with it is raised, never passed over. Then come the
    installs for this platform: the one marked active, then the pinned release, then the newest.

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
    here = str(current_platform())
    for installed in list_installed():
        if installed.platform != here:
            continue
        try:
            return installed.scan()
        except LibraryError as error:
            _log.warning("an installed libllama is passed over: %s", error)
    return None


def list_installed() -> list[Installed]:
    """Return every complete install under `LLAMALITE_HOME`, the preferred one first."""
    folder = libs_folder()
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []
    active = _active_name(folder)
    found = [read_installed(folder / name, active=name == active) for name in names]
    installs = [installed for installed in found if installed is not None]
    if active and not any(installed.active for installed in installs):
        _log.warning("the libllama marked active, %s, is gone: another is used", folder / active)
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
    fields = ("release", "backend", "platform", "source", "origin", "installed_at")
    values = {field: str(record.get(field, "")) for field in fields}
    return Installed(folder=folder, active=active, **values)


def mark_active(installed: Installed) -> None:
    """Prefer one install over the others from now on."""
    mark = installed.folder.parent / _ACTIVE_MARK
    fresh = mark.with_name(f".{_ACTIVE_MARK}-{os.getpid()}")
    fresh.write_text(installed.folder.name + "\n", encoding="utf-8")
    os.replace(fresh, mark)


def _active_name(folder: Path) -> str:
    try:
        return (folder / _ACTIVE_MARK).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
