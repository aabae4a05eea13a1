"""A build of libllama from an archive or folder that is already on this computer.

Owns copying it. Nothing vouches for what is in it, which is said. Imports the standard library,
`llamalite.errors` and the modules beside it.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from llamalite.errors import DownloadError, InvalidParameter, LibraryError, LibraryNotFound
from llamalite.libs.files.bounded import open_regular
from llamalite.libs.files.folder import scan_folder
from llamalite.libs.sources.assets import is_known
from llamalite.libs.transfer.progress import Say
from llamalite.libs.transfer.unpack import is_kept, unpack_libraries

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".zip", ".whl")

_TAG = re.compile(r"(?<![a-z0-9])(b\d{3,6}|v\d{1,5}\.\d{1,5}\.\d{1,5})(?![0-9])", re.ASCII)
_RELEASE = re.compile(r"(b|v|own-)\w[\w.+-]{0,60}", re.ASCII)
_SYNC_WHEEL = re.compile(r"llama_cpp_py_sync-0\.(\d{4,6})", re.ASCII)
_ADDRESS = re.compile(r"[a-z]+:/", re.IGNORECASE)  # a Path has one of its two slashes left


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
        """Look whether it is there, of a known kind, and can be read."""
        try:
            if stat.S_ISDIR(os.stat(self.path).st_mode):
                return None
            if self.path.name.lower().endswith(ARCHIVE_SUFFIXES):
                open_regular(self.path).close()
                return None
        except FileNotFoundError:
            return f"there is no {self.path}"
        except OSError as error:
            return f"{self.path} can't be read: {error.strerror or error}"
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

    Raises:
        InvalidParameter: it is an address on the web.
        LibraryNotFound: llama.cpp has no such backend.
    """
    if _ADDRESS.match(os.fspath(path)):
        raise InvalidParameter(
            "FROM is an address: download it first and give the file, or leave FROM out and give "
            "--release (LLAMALITE_GITHUB_URL names a mirror)",
            param="FROM",
        )
    if not is_known(backend):
        raise LibraryNotFound(f"there is no {backend} build of libllama: leave --backend out")
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
            f"{error.filename or folder} can't be copied: {error.strerror or error}"
        ) from None
