"""Unpacks an archive's shared libraries into one flat folder, trusting nothing in it.

Owns which files are kept and every check on names, links, counts and sizes. Doesn't know where
archives come from. Imports the standard library, `llamalite.errors` and `streams`.

Nothing is ever written under a name from the archive but its last part, so no path can escape;
archives that try are refused as a whole all the same.
"""

from __future__ import annotations

import errno
import gzip
import os
import posixpath
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from llamalite.errors import DownloadError
from llamalite.libs.transfer.streams import MAX_BLOCK_BYTES, Bounded, open_archive, too_large

MAX_BYTES = 6 << 30
"""Largest unpacked size of one archive; CUDA's runtime comes to about 1 GiB."""

_MAX_RATIO = 50  # libraries pack to a half or a tenth, zeros to a thousandth
_ALWAYS_ALLOWED_BYTES = 32 << 20
_MAX_MEMBERS = 20_000
_MAX_DIRECTORY_BYTES = 8 << 20
_MAX_LINK_STEPS = 8
_MAX_NAME_BYTES = 160
_LIBRARY = re.compile(r"\w[\w.+-]*\.(so(\.\d+)*|dylib|dll|metal|metallib)", re.ASCII)
_PROGRAM_PART = re.compile(r"-impl\.")
_LICENCE = re.compile(
    r"(LICEN[CS]E|COPYING|NOTICE)([._-][\w.-]*)?(?<!\.)", re.IGNORECASE | re.ASCII
)
_RESERVED = re.compile(r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)\d)(\..*)?", re.IGNORECASE)
_RECORDS = {"_nlcBuildMetadata.json"}
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    gzip.BadGzipFile,
    EOFError,
    # What the standard library's readers raise for headers that make no sense.
    ValueError,
    OverflowError,
    LookupError,
    struct.error,
    AttributeError,
    TypeError,
)


@dataclass(frozen=True)
class _Member:
    """One entry: a file with an open stream, or a link to another entry of the archive."""

    path: str
    n_bytes: int
    stream: IO[bytes] | None
    link: str | None = None


def unpack_libraries(archive: Path, folder: Path, max_bytes: int | None = None) -> list[str]:
    """Unpack an archive's shared libraries and licences into a folder, without subfolders.

    Programs, headers and Node's add-on are left out. Links between libraries are kept as links.
    Files get mode 644, whatever the archive says.

    Args:
        archive: `.tar.gz`, `.tgz`, `.zip` or `.whl`.
        folder: an existing folder; files already there are never replaced.
        max_bytes: limit for everything in the archive, unpacked; None for one by its own size.

    Returns:
        Names of the libraries.

    Raises:
        DownloadError: the archive can't be read, is damaged or too large, or holds something it
            must not.
        OSError: the folder can't be written.
    """
    try:
        with open_archive(archive) as stream:
            if max_bytes is None:
                packed = os.fstat(stream.fileno()).st_size
                max_bytes = min(MAX_BYTES, max(_ALWAYS_ALLOWED_BYTES, _MAX_RATIO * packed))
            reader = _zip if stream.read(4) == b"PK\x03\x04" else _tar
            stream.seek(0)
            return _extract(archive, reader(archive, stream, max_bytes), folder, max_bytes)
    except _DAMAGED as error:
        raise DownloadError(
            f"{archive.name} is damaged or no archive ({_reason(error)}): fetch it again"
        ) from None
    except (NotImplementedError, RuntimeError) as error:  # zipfile: encrypted; endless recursion
        raise DownloadError(f"{archive.name} can't be unpacked ({_reason(error)})") from None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise DownloadError(  # a seek to where a header pointed
            f"{archive.name} is damaged (it points outside itself): fetch it again"
        ) from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _extract(archive: Path, members: Iterator[_Member], folder: Path, max_bytes: int) -> list[str]:
    written: dict[str, Path] = {}
    links: dict[str, str] = {}
    left = max_bytes
    for member in members:
        path = _safe_path(archive, member.path)
        name = posixpath.basename(path)
        if member.link is not None:
            links[path] = _safe_path(archive, member.link)
        elif member.stream is not None and is_kept(name):
            target = _place(archive, folder, name)
            if target is None:
                continue
            left -= _write(member.stream, target, left)
            if left < 0:
                raise too_large(archive, max_bytes)
            written[path] = target
    _make_links(archive, links, written, folder)
    return sorted(path.name for path in folder.iterdir() if _LIBRARY.fullmatch(path.name))


def _write(stream: IO[bytes], target: Path, most: int) -> int:
    """Write a new file, up to a byte more than is allowed, and return its length."""
    n_bytes = 0
    with open(target, "xb") as output:
        while n_bytes <= most and (block := stream.read(MAX_BLOCK_BYTES)):
            output.write(block)
            n_bytes += len(block)
    target.chmod(0o644)
    return n_bytes


def _place(archive: Path, folder: Path, name: str) -> Path | None:
    """Return where a file goes, or None for one that need not be there twice.

    Raises:
        DownloadError: no file can have that name, or one has it already.
    """
    if _RESERVED.fullmatch(name) or len(name) > _MAX_NAME_BYTES:
        raise DownloadError(
            f"{archive.name} holds {name[:40]!r}, which is no file name everywhere: it was not "
            f"unpacked, for it is no release of libllama"
        )
    place = folder / name
    if os.path.lexists(place):
        if not _LIBRARY.fullmatch(name):
            return None
        raise DownloadError(f"{archive.name} holds {name} twice: it is no release of libllama")
    return place


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
        if end not in written or not _LIBRARY.fullmatch(name) or not is_kept(name):
            continue  # a link to something left out
        place = _place(archive, folder, name)
        if place is None:
            continue
        try:
            os.symlink(written[end].name, place)
        except OSError:  # Windows without the right to make links
            shutil.copyfile(written[end], place)


def is_kept(name: str) -> bool:
    """Tell whether a file of that name is kept: a library, a licence or a build's record."""
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
            f"{archive.name} holds {path[:100]!r}, which leads out of its folder: it was not "
            f"unpacked; don't use where it came from"
        )
    return posixpath.normpath(plain)


def _tar(archive: Path, packed: BinaryIO, max_bytes: int) -> Iterator[_Member]:
    with gzip.GzipFile(fileobj=packed) as stream:
        bounded = Bounded(stream, archive, max_bytes)
        with tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r:") as tar:
            yield from _tar_members(archive, tar)
        bounded.check_end()


def _tar_members(archive: Path, tar: tarfile.TarFile) -> Iterator[_Member]:
    for count, entry in enumerate(tar):
        _check_count(archive, count)
        if entry.isdir():
            continue
        if entry.issym():
            base = posixpath.dirname(entry.name)
            yield _Member(entry.name, 0, None, _resolve(archive, base, entry.linkname))
        elif entry.islnk():
            yield _Member(entry.name, 0, None, entry.linkname)
        elif entry.isreg() and not entry.issparse():
            yield _Member(entry.name, entry.size, tar.extractfile(entry))
        else:
            raise _odd(archive, entry.name)


def _zip(archive: Path, packed: BinaryIO, max_bytes: int) -> Iterator[_Member]:
    _check_directory(archive, packed)
    with zipfile.ZipFile(packed) as zipped:
        entries = zipped.infolist()
        _check_count(archive, len(entries))
        if sum(entry.file_size for entry in entries) > max_bytes:
            raise too_large(archive, max_bytes)
        for entry in entries:
            kind = stat.S_IFMT(entry.external_attr >> 16) if entry.create_system == 3 else 0
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                raise _odd(archive, entry.filename)
            if entry.is_dir() or kind == stat.S_IFDIR:
                continue
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise NotImplementedError(f"compression {entry.compress_type}")
            with zipped.open(entry) as stream:
                if kind == stat.S_IFLNK:
                    text = stream.read(4096).decode("utf-8", "replace")
                    base = posixpath.dirname(entry.filename)
                    yield _Member(entry.filename, 0, None, _resolve(archive, base, text))
                else:
                    yield _Member(entry.filename, entry.file_size, stream)


def _check_directory(archive: Path, packed: BinaryIO) -> None:
    """Refuse a zip whose list of members is huge: zipfile would read it all into memory."""
    packed.seek(max(0, packed.seek(0, os.SEEK_END) - (1 << 16) - 22))
    tail = packed.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise zipfile.BadZipFile("its end is missing")
    if tail[max(0, at - 20) :].startswith(b"PK\x06\x07"):
        raise NotImplementedError("it has the 64-bit form, which no release needs")
    n_members, n_bytes = struct.unpack("<HL", tail[at + 10 : at + 16])
    _check_count(archive, n_members)
    if n_bytes > _MAX_DIRECTORY_BYTES:
        _check_count(archive, _MAX_MEMBERS + 1)


def _odd(archive: Path, name: str) -> DownloadError:
    return DownloadError(
        f"{archive.name} holds {name[:100]!r}, which is no file, folder or link: it was not "
        f"unpacked"
    )


def _resolve(archive: Path, base: str, target: str) -> str:
    """Return where a symbolic link leads, as a path of the archive.

    Raises:
        DownloadError: it leads out of the archive.
    """
    target = target.replace("\\", "/")
    joined = posixpath.normpath(posixpath.join(base, target))
    if target.startswith("/") or joined.split("/")[0] == "..":
        raise DownloadError(
            f"{archive.name} holds a link to {target[:100]!r}, which leads out of its folder: it "
            f"was not unpacked; don't use where it came from"
        )
    return joined


def _check_count(archive: Path, count: int) -> None:
    if count > _MAX_MEMBERS:
        raise DownloadError(
            f"{archive.name} holds over {_MAX_MEMBERS} entries: it was not unpacked"
        )
