"""A build of libllama from an archive or folder that is already on this computer.

Owns copying it. Nothing vouches for what is in it, which is said. Imports the standard library,
`llamalite.errors` and the modules beside it.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from llamalite.errors import DownloadError, LibraryError, LibraryNotFound
from llamalite.libs.files.folder import scan_folder
from llamalite.libs.transfer.download import Say
from llamalite.libs.transfer.unpack import is_kept, unpack_libraries

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".zip", ".whl")

_TAG = re.compile(r"(?<![a-z0-9])(b\d{3,6}|v\d+\.\d+\.\d+)(?![0-9])")
_RELEASE = re.compile(r"(b|v|own-)\w[\w.+-]{0,60}")
_SYNC_WHEEL = re.compile(r"llama_cpp_py_sync-0\.(\d{4,6})")


@dataclass(frozen=True)
class LocalFetch:
    """An archive or a folder.

    Attributes:
        release: as the archive's or folder's name says it, or None.
        backend: as it was asked for; "" if the files shall tell.
    """

    path: Path
    release: str | None
    backend: str
    source: str = "local"
    label: str = "the local file"
    verified: str = "not verified (local file)"

    @property
    def origin(self) -> str:
        """Where it lies."""
        return str(self.path)

    def describe(self) -> str:
        """Name it."""
        return f"{self.path} (a local {'folder' if self.path.is_dir() else 'archive'})"

    def problem(self) -> str | None:
        """Look whether it is there and of a known kind."""
        if self.path.is_dir() or self.path.name.lower().endswith(ARCHIVE_SUFFIXES):
            return None if self.path.exists() else f"there is no {self.path}"
        if not self.path.exists():
            return f"there is no {self.path}"
        return (
            f"{self.path} is neither a folder nor an archive ({', '.join(ARCHIVE_SUFFIXES)}): give "
            f"one that has libllama in it"
        )

    def resolve(self, say: Say | None) -> LocalFetch:
        """Read the release of a folder from its files."""
        if not self.path.is_dir():
            return self
        try:
            said = plain_release(scan_folder(self.path).release)
            return replace(self, release=said or self.release)
        except LibraryError as error:
            raise LibraryNotFound(str(error)) from None

    def fetch(self, into: Path, cache: Path, say: Say | None) -> None:
        """Unpack or copy it."""
        if self.path.is_dir():
            copy_libraries(scan_folder(self.path).folder, into)
        else:
            unpack_libraries(self.path, into)


def local_way(path: Path, backend: str) -> LocalFetch:
    """Return how a local archive or folder is installed.

    Args:
        path: may be relative or begin with `~`.
        backend: `cpu` lets the files tell.
    """
    path = Path(os.path.expanduser(path)).absolute()
    return LocalFetch(path, release_in_name(path.name), "" if backend == "cpu" else backend)


def release_in_name(name: str) -> str | None:
    """Return the build's tag that an archive's name holds, or None."""
    if found := _SYNC_WHEEL.match(name):
        return f"b{found[1]}"
    return found[1] if (found := _TAG.search(name)) else None


def plain_release(said: str | None) -> str | None:
    """Return what a file says its release is, or None where that is no name of one.

    NOTE: folders are named after it, so it must not be a path.
    """
    return said if said is not None and _RELEASE.fullmatch(said) else None


def copy_libraries(folder: Path, into: Path) -> None:
    """Copy the libraries and licences of one folder, without what is below it.

    Contents only: no owner, mode or attribute comes along, so neither does macOS's quarantine.
    Links among the files stay links.

    Raises:
        DownloadError: a file can't be read or written.
    """
    try:
        for path in sorted(folder.iterdir()):
            if not is_kept(path.name) or not path.is_file():
                continue
            end = path.resolve()
            if path.is_symlink() and end.parent == folder.resolve() and is_kept(end.name):
                os.symlink(end.name, into / path.name)
            else:
                shutil.copyfile(path, into / path.name)
    except OSError as error:
        raise DownloadError(
            f"{error.filename or folder} can't be copied to {into.parent}: "
            f"{error.strerror or error}"
        ) from None
