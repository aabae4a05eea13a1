"""What this machine's dynamic loader offers: its C library, and which file a name leads to.

Owns the loader's search order on Linux, read without running `ldconfig`. Knows nothing about
libllama. Imports the standard library, `llamalite.errors` and the readers beside it.

Source: ld.so(8), "the shared object dependencies are searched"; glibc's ld.so.cache, new format.
"""

from __future__ import annotations

import os
import re
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from llamalite.errors import LibraryIncompatible
from llamalite.libs.elf import ElfFile, read_elf
from llamalite.libs.platforms import Platform, current_platform

_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_CACHE_HEADER_BYTES = 48
_CACHE_ENTRY = struct.Struct("=iIIIQ")
_TRIPLETS = {"x64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}


def glibc_version() -> tuple[int, ...] | None:
    """Return this process's glibc version, or None where the C library is another one."""
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):
        return None
    match = re.fullmatch(r"glibc (\d+(?:\.\d+)+)", text)
    return tuple(map(int, match[1].split("."))) if match else None


def this_machine() -> Machine:
    """Describe the machine this process runs on.

    Raises:
        LibraryIncompatible: libllama isn't built for it.
    """
    return Machine(platform=current_platform(), glibc=glibc_version())


@dataclass(frozen=True)
class Machine:
    """A platform, its C library and where its loader searches.

    Attributes:
        glibc: version numbers, or None where the C library isn't glibc.
        folders: searched instead of this system's own places; None for the real ones.
    """

    platform: Platform
    glibc: tuple[int, ...] | None = None
    folders: tuple[Path, ...] | None = None
    _read: dict[Path, ElfFile | None] = field(default_factory=dict, compare=False, repr=False)

    def find(self, name: str, first: Iterable[Path] = ()) -> ElfFile | None:
        """Find the library the loader would take for a needed name, or None.

        Args:
            name: as in another library's needs, such as `libstdc++.so.6`.
            first: the asking library's own search folders.
        """
        for path in self._candidates(name, first):
            if path not in self._read:
                self._read[path] = self._usable(path)
            found = self._read[path]
            if found is not None:
                return found
        return None

    def _usable(self, path: Path) -> ElfFile | None:
        try:
            library = read_elf(path)
        except LibraryIncompatible:
            return None  # the loader too passes over files of other formats
        return library if library.machine == self.platform.arch else None

    def _candidates(self, name: str, first: Iterable[Path]) -> Iterable[Path]:
        if "/" in name:
            yield Path(name)
            return
        if self.folders is not None:
            yield from (folder / name for folder in (*first, *self.folders))
            return
        if name in self._loaded:
            yield self._loaded[name]
        yield from (folder / name for folder in (*self._program_rpath, *self._environment, *first))
        yield from loader_cache_paths(self._cache, name)
        yield from (folder / name for folder in self._standard_folders)

    @cached_property
    def _loaded(self) -> dict[str, Path]:
        """Libraries already in this process, which the loader takes by name first."""
        loaded: dict[str, Path] = {}
        try:
            lines = Path("/proc/self/maps").read_text(errors="replace").splitlines()
        except OSError:
            return loaded
        for line in lines:
            parts = line.split(maxsplit=5)
            if len(parts) == 6 and ".so" in parts[5] and parts[5].startswith("/"):
                path = Path(parts[5])
                loaded.setdefault(path.name, path)
        return loaded

    @cached_property
    def _program_rpath(self) -> tuple[Path, ...]:
        """The interpreter's own RPATH (conda's Pythons have one)."""
        try:
            return read_elf(Path(sys.executable).resolve(), program=True).rpath
        except LibraryIncompatible:
            return ()

    @property
    def _environment(self) -> list[Path]:
        return [Path(part) for part in os.environ.get("LD_LIBRARY_PATH", "").split(":") if part]

    @property
    def _standard_folders(self) -> list[Path]:
        triplet = _TRIPLETS[self.platform.arch]
        names = (f"/lib/{triplet}", f"/usr/lib/{triplet}", "/lib64", "/usr/lib64", "/lib")
        folders = [Path(name) for name in (*names, "/usr/lib", "/usr/local/lib")]
        # Where the C library itself came from counts too: Nix and Guix have no standard folders.
        libc = self._loaded.get("libc.so.6")
        return [*folders, libc.parent] if libc else folders

    @cached_property
    def _cache(self) -> bytes:
        try:
            return Path("/etc/ld.so.cache").read_bytes()
        except OSError:
            return b""


def loader_cache_paths(cache: bytes, name: str) -> list[Path]:
    """Look a library's name up in an ld.so.cache; [] if it isn't there or the cache is malformed.

    Args:
        cache: the file: the new format, alone or behind an old one.
        name: as in a library's needs.
    """
    start = cache.find(_CACHE_MAGIC)
    if start < 0 or len(cache) < start + _CACHE_HEADER_BYTES:
        return []
    (count,) = struct.unpack_from("=I", cache, start + len(_CACHE_MAGIC))
    table = cache[start + _CACHE_HEADER_BYTES :]
    usable = min(count, len(table) // _CACHE_ENTRY.size) * _CACHE_ENTRY.size
    key = name.encode() + b"\0"
    paths = []
    for _flags, at, value, _os, _hardware in _CACHE_ENTRY.iter_unpack(table[:usable]):
        if cache.startswith(key, start + at):
            end = cache.find(b"\0", start + value)
            if end > start + value:
                paths.append(Path(os.fsdecode(cache[start + value : end])))
    return paths
