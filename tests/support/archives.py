"""Release archives as upstream laid them out in each era, and archives that mean harm.

Built from a folder of real libraries (an npm package's, a Windows zip's) or of made-up ones. The
same bytes every time, so that a digest taken in one process holds in another.

Source: upstream's release archives. Linux and macOS: zip with `build/bin/` to b7223, tar.gz
without a folder to b7277, tar.gz with `llama-bNNNN/` since; library names with versions and links
since b7022. Windows: a zip without folders, always.
"""

from __future__ import annotations

import gzip
import io
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llamalite.libs.platforms import parse_library_name

_VERSION = "0.5.0"
_LICENCE = b"MIT License\n\nCopyright (c) 2023-2026 The ggml authors\n"
_PROGRAMS = ("llama-cli", "llama-server", "llama-bench")


@dataclass(frozen=True)
class Entry:
    """One member: a file, or a link where `link` is not empty."""

    path: str
    content: bytes = b""
    link: str = ""
    mode: int = 0o755


def linux_archive(
    libraries: Path, tag: str, name: str = "ubuntu-x64", modules: Sequence[str] | None = None
) -> tuple[str, bytes]:
    """Return the file name and content of build `tag`'s Linux archive.

    Args:
        libraries: folder with the real libraries, under names of any era.
        tag: decides the era: `b5640`, `b7100`, `b7250`, `b11146`.
        name: the part of the file name after `-bin-`.
        modules: CPU modules to keep (`x64`, `haswell`), to stay small; None for all.
    """
    number = int(tag[1:])
    folder = "build/bin/" if number < 7224 else "" if number < 7278 else f"llama-{tag}/"
    entries = list(_linux_entries(libraries, number >= 7022, modules))
    entries = [Entry(folder + e.path, e.content, e.link, e.mode) for e in entries]
    if number < 7224:
        return f"llama-{tag}-bin-{name}.zip", zip_of(entries)
    return f"llama-{tag}-bin-{name}.tar.gz", tar_gz_of(entries)


def windows_archive(
    libraries: Path, tag: str, name: str = "win-cpu-x64", modules: Sequence[str] | None = None
) -> tuple[str, bytes]:
    """Return the file name and content of build `tag`'s Windows archive: a zip, all in the top."""
    entries = [Entry(f"{program}.exe", b"MZ program") for program in _PROGRAMS]
    entries += [Entry("llama-server-impl.dll", b"MZ program"), Entry("LICENSE", _LICENCE)]
    for path in _chosen(libraries, modules):
        entries.append(Entry(_plain_name(path), _renamed(path)))
    return f"llama-{tag}-bin-{name}.zip", zip_of(entries)


def _linux_entries(
    libraries: Path, versioned: bool, modules: Sequence[str] | None
) -> Iterator[Entry]:
    yield Entry("LICENSE", _LICENCE, mode=0o644)
    for program in _PROGRAMS:
        yield Entry(program, b"\x7fELF program")
    yield Entry("libllama-server-impl.so", b"\x7fELF program")
    for path in _chosen(libraries, modules):
        name = _plain_name(path)
        if versioned and "ggml-cpu" not in name:
            yield Entry(name, link=f"{name}.0")
            yield Entry(f"{name}.0", link=f"{name}.{_VERSION}")
            name = f"{name}.{_VERSION}"
        yield Entry(name, _renamed(path))


def _chosen(libraries: Path, modules: Sequence[str] | None) -> Iterator[Path]:
    """Yield each library once, under the first of its names, without CPU modules left out."""
    seen = set()
    for path in sorted(libraries.iterdir()):
        named = parse_library_name(path.name)
        if named is None or named.stem in seen:
            continue
        variant = named.stem.removeprefix("ggml-cpu-")
        if modules is not None and variant != named.stem and variant not in modules:
            continue
        seen.add(named.stem)
        yield path


def _plain_name(path: Path) -> str:
    named = parse_library_name(path.name)
    assert named is not None
    return f"{'' if named.suffix == 'dll' else 'lib'}{named.stem}.{named.suffix}"


def _renamed(path: Path) -> bytes:
    """Return a library's bytes with npm's own names (`libggml.v0.5.0.so`) made upstream's.

    The names are strings of the dynamic section and shorter after than before, so they are
    replaced where they stand.
    """

    def plain(match: re.Match[bytes]) -> bytes:
        return (match[1] + b".so").ljust(len(match[0]), b"\0")

    return re.sub(rb"(lib(?:ggml|llama))\.[bv]\d+(?:\.\d+)*\.so(?=\0)", plain, path.read_bytes())


def tar_gz_of(entries: Sequence[Entry]) -> bytes:
    """Pack entries as `.tar.gz`."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for entry in entries:
            member = tarfile.TarInfo(entry.path)
            member.mode = entry.mode
            if entry.link:
                member.type, member.linkname = tarfile.SYMTYPE, entry.link
            else:
                member.size = len(entry.content)
            tar.addfile(member, io.BytesIO(entry.content))
    return gzip.compress(stream.getvalue(), compresslevel=1, mtime=0)


def zip_of(entries: Sequence[Entry]) -> bytes:
    """Pack entries as `.zip`; links as Info-ZIP's `zip -y` stores them."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
        for entry in entries:
            member = zipfile.ZipInfo(entry.path)
            kind = stat.S_IFLNK if entry.link else stat.S_IFREG
            member.external_attr = (kind | entry.mode) << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            member.create_system = 3
            zipped.writestr(member, entry.link.encode() if entry.link else entry.content)
    return stream.getvalue()


def tar_with_member(path: str, kind: bytes, link: str = "", size: int = 0) -> bytes:
    """Return a `.tar.gz` with one odd member: a hard link, a device, a fifo."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo(path)
        member.type, member.linkname, member.size = kind, link, size
        tar.addfile(member, io.BytesIO(bytes(size)))
    return gzip.compress(stream.getvalue(), mtime=0)


def zip_lying_about_size(path: str, content: bytes, claimed: int) -> bytes:
    """Return a `.zip` whose headers claim another unpacked size than the member has."""
    packed = bytearray(zip_of([Entry(path, content)]))
    true, false = len(content).to_bytes(4, "little"), claimed.to_bytes(4, "little")
    for magic, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = packed.index(magic) + offset
        assert packed[at : at + 4] == true
        packed[at : at + 4] = false
    return bytes(packed)


def zip_of_one_part_many_times(path: str, content: bytes, times: int) -> bytes:
    """Return a `.zip` whose directory names the same packed part again and again."""
    packed = zip_of([Entry(path, content)])
    start = packed.index(b"PK\x01\x02")
    end = packed.index(b"PK\x05\x06")
    record, n_path = packed[start:end], len(path)
    body = bytearray()
    for number in range(times):
        again = bytearray(record)
        again[46 : 46 + n_path] = f"{number:0{n_path}d}"[-n_path:].encode()
        body += again
    tail = bytearray(packed[end:])
    tail[8:12] = min(times, 0xFFFF).to_bytes(2, "little") * 2
    tail[12:16] = len(body).to_bytes(4, "little")
    return packed[:start] + bytes(body) + bytes(tail)


@dataclass(frozen=True)
class Hostile:
    """An archive to be refused.

    Attributes:
        suffix: of its file name.
        said: part of the line it must be refused with.
    """

    suffix: str
    make: Callable[[], bytes]
    said: str


def _tar(*entries: Entry) -> Callable[[], bytes]:
    return lambda: tar_gz_of(entries)


def _zip(*entries: Entry) -> Callable[[], bytes]:
    return lambda: zip_of(entries)


_OUT = "leads out of its folder"
_ODD = "no file, folder or link"
_BIG = "unpacks to more than"
_BOMB_BYTES = 64 << 20

HOSTILE = {
    "tar: up": Hostile(".tar.gz", _tar(Entry("llama-b1/../../libllama.so", b"x")), _OUT),
    "tar: absolute": Hostile(".tar.gz", _tar(Entry("/tmp/libllama.so", b"x")), _OUT),
    "tar: drive": Hostile(".tar.gz", _tar(Entry("C:\\libllama.so", b"x")), _OUT),
    "tar: link up": Hostile(".tar.gz", _tar(Entry("a/libllama.so", link="../../passwd")), _OUT),
    "tar: link absolute": Hostile(".tar.gz", _tar(Entry("libllama.so", link="/etc/x")), _OUT),
    "tar: hard link out": Hostile(
        ".tar.gz", lambda: tar_with_member("libllama.so", tarfile.LNKTYPE, "/etc/passwd"), _OUT
    ),
    "tar: device": Hostile(
        ".tar.gz", lambda: tar_with_member("a/libllama.so", tarfile.CHRTYPE), _ODD
    ),
    "tar: fifo": Hostile(
        ".tar.gz", lambda: tar_with_member("a/libllama.so", tarfile.FIFOTYPE), _ODD
    ),
    "tar: bomb": Hostile(".tar.gz", _tar(Entry("libllama.so", bytes(_BOMB_BYTES))), _BIG),
    "zip: up": Hostile(".zip", _zip(Entry("../llama.dll", b"MZ")), _OUT),
    "zip: drive": Hostile(".zip", _zip(Entry("C:llama.dll", b"MZ")), _OUT),
    "zip: link up": Hostile(".zip", _zip(Entry("build/bin/libllama.so", link="../../../x")), _OUT),
    "zip: bomb": Hostile(".zip", _zip(Entry("llama.dll", bytes(_BOMB_BYTES))), _BIG),
    "zip: lies about size": Hostile(
        ".zip", lambda: zip_lying_about_size("llama.dll", bytes(_BOMB_BYTES), 100), "damaged"
    ),
}
"""Archives to be refused, by what is wrong with them."""
