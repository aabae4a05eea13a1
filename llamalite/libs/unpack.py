"""Unpacks an archive's shared libraries into one flat folder, trusting nothing in it.

Owns which files are kept and every check on names, links, counts and sizes. Doesn't know where
archives come from. Imports the standard library and `llamalite.errors` alone.

Nothing is ever written under a name from the archive but its last part, so no path can escape;
archives that try are refused as a whole all the same.
"""

from __future__ import annotations

import gzip
import io
import os
import posixpath
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from llamalite.errors import DownloadError

MAX_BYTES = 6 << 30
"""Largest unpacked size of one archive; CUDA's runtime comes to about 1 GiB."""

_MAX_MEMBERS = 20_000
_MAX_BLOCK_BYTES = 1 << 20
_MAX_LINK_STEPS = 8
_LIBRARY = re.compile(r"[\w.+-]+\.(so(\.\d+)*|dylib|dll|metal|metallib)")
_PROGRAM_PART = re.compile(r"-impl\.")
_LICENCE = re.compile(r"(LICEN[CS]E|COPYING|NOTICE)([._-][\w.-]*)?", re.IGNORECASE)
_RECORDS = {"_nlcBuildMetadata.json"}


@dataclass(frozen=True)
class _Member:
    """One entry: a file with an open stream, or a link to another entry of the archive."""

    path: str
    n_bytes: int
    stream: IO[bytes] | None
    link: str | None = None


def unpack_libraries(archive: Path, folder: Path, max_bytes: int = MAX_BYTES) -> list[str]:
    """Unpack an archive's shared libraries and licences into a folder, without subfolders.

    Programs, headers and Node's add-on are left out. Links between libraries are kept as links.

    Args:
        archive: `.tar.gz`, `.tgz` or `.zip`.
        folder: an existing folder; files already there are never replaced.
        max_bytes: limit for everything in the archive, unpacked.

    Returns:
        Names of the libraries.

    Raises:
        DownloadError: the archive is damaged, too large, or holds something it must not.
    """
    try:
        members = _tar(archive, max_bytes) if not _is_zip(archive) else _zip(archive, max_bytes)
        return _extract(archive, members, folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise DownloadError(
            f"{archive.name} is damaged or no archive ({error}): fetch it again"
        ) from None
    except (NotImplementedError, RuntimeError) as error:  # zipfile: encrypted, odd compression
        raise DownloadError(f"{archive.name} can't be unpacked ({error})") from None


def _is_zip(archive: Path) -> bool:
    with open(archive, "rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def _extract(archive: Path, members: Iterator[_Member], folder: Path) -> list[str]:
    written: dict[str, Path] = {}
    links: dict[str, str] = {}
    for member in members:
        path = _safe_path(archive, member.path)
        name = posixpath.basename(path)
        if member.link is not None:
            links[path] = _safe_path(archive, member.link)
        elif member.stream is not None and _is_kept(name):
            target = folder / name
            if target.exists():
                if _LICENCE.fullmatch(name) or name in _RECORDS:
                    continue
                raise DownloadError(
                    f"{archive.name} holds {name} twice: it is no release of libllama"
                )
            with open(target, "xb") as output:
                shutil.copyfileobj(member.stream, output, _MAX_BLOCK_BYTES)
            target.chmod(0o644)
            written[path] = target
    _make_links(archive, links, written, folder)
    return sorted(path.name for path in folder.iterdir() if _LIBRARY.fullmatch(path.name))


def _make_links(
    archive: Path, links: dict[str, str], written: dict[str, Path], folder: Path
) -> None:
    for path in links:
        end = path
        for _ in range(_MAX_LINK_STEPS):
            if end not in links:
                break
            end = links[end]
        name = posixpath.basename(path)
        if end not in written or not _is_kept(name):
            continue  # a link to something left out
        place = folder / name
        if place.exists():
            raise DownloadError(f"{archive.name} holds {name} twice: it is no release of libllama")
        try:
            os.symlink(written[end].name, place)
        except OSError:  # Windows without the right to make links
            shutil.copyfile(written[end], place)


def _is_kept(name: str) -> bool:
    if _LIBRARY.fullmatch(name):
        return not _PROGRAM_PART.search(name)
    return name in _RECORDS or _LICENCE.fullmatch(name) is not None


def _safe_path(archive: Path, path: str) -> str:
    """Return a member's path in its plain form.

    Raises:
        DownloadError: it leads out of the archive's own folder.
    """
    plain = path.replace("\\", "/")
    if plain.startswith("/") or ".." in plain.split("/") or ":" in plain or "\0" in plain:
        raise DownloadError(
            f"{archive.name} holds {path!r}, which leads out of its folder: it was not unpacked; "
            f"don't use where it came from"
        )
    return posixpath.normpath(plain)


def _tar(archive: Path, max_bytes: int) -> Iterator[_Member]:
    with (
        gzip.open(archive, "rb") as stream,
        tarfile.open(
            fileobj=cast(IO[bytes], _Bounded(stream, archive, max_bytes)), mode="r:"
        ) as tar,
    ):
        for count, entry in enumerate(tar):
            _check_count(archive, count)
            if entry.isdir():
                continue
            if entry.issym():
                base = posixpath.dirname(entry.name)
                yield _Member(entry.name, 0, None, _resolve(archive, base, entry.linkname))
            elif entry.islnk():
                yield _Member(entry.name, 0, None, entry.linkname)
            elif entry.isreg():
                yield _Member(entry.name, entry.size, tar.extractfile(entry))
            else:
                raise DownloadError(
                    f"{archive.name} holds {entry.name!r}, which is no file, folder or link: it "
                    f"was not unpacked"
                )


def _zip(archive: Path, max_bytes: int) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as zipped:
        entries = zipped.infolist()
        _check_count(archive, len(entries))
        if sum(entry.file_size for entry in entries) > max_bytes:
            raise _too_large(archive, max_bytes)
        for entry in entries:
            if entry.is_dir():
                continue
            with zipped.open(entry) as stream:
                if stat.S_ISLNK(entry.external_attr >> 16):
                    text = stream.read(4096).decode("utf-8", "replace")
                    base = posixpath.dirname(entry.filename)
                    yield _Member(entry.filename, 0, None, _resolve(archive, base, text))
                else:
                    yield _Member(entry.filename, entry.file_size, stream)


def _resolve(archive: Path, base: str, target: str) -> str:
    """Return where a symbolic link leads, as a path of the archive.

    Raises:
        DownloadError: it leads out of the archive.
    """
    joined = posixpath.normpath(posixpath.join(base, target))
    if target.startswith("/") or joined.split("/")[0] == "..":
        raise DownloadError(
            f"{archive.name} holds a link to {target!r}, which leads out of its folder: it was not "
            f"unpacked; don't use where it came from"
        )
    return joined


def _check_count(archive: Path, count: int) -> None:
    if count > _MAX_MEMBERS:
        raise DownloadError(
            f"{archive.name} holds over {_MAX_MEMBERS} entries: it was not unpacked"
        )


def _too_large(archive: Path, max_bytes: int) -> DownloadError:
    return DownloadError(
        f"{archive.name} unpacks to more than {max_bytes:,} bytes: it was not unpacked, for it "
        f"can be no release of libllama"
    )


class _Bounded(io.RawIOBase):
    """A stream that may be read up to a limit, in blocks of bounded size.

    tarfile takes header sizes on trust and would read a lying one into memory whole.
    """

    def __init__(self, stream: gzip.GzipFile, archive: Path, max_bytes: int) -> None:
        self.stream, self.archive, self.max_bytes = stream, archive, max_bytes

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > _MAX_BLOCK_BYTES:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        block = self.stream.read(size)
        if self.stream.tell() > self.max_bytes:
            raise _too_large(self.archive, self.max_bytes)
        return block

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset > self.max_bytes:
            raise _too_large(self.archive, self.max_bytes)
        return self.stream.seek(offset)

    def tell(self) -> int:
        return self.stream.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
