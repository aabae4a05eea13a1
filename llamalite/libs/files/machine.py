"""What this machine's dynamic loader offers: its C library, and which file a name leads to.

Owns the loaders' search orders, read without running anything. Knows nothing about libllama.
Imports the standard library, `llamalite.errors` and the readers beside it.

Source: ld.so(8), "the shared object dependencies are searched"; glibc's ld.so.cache, new format.
Microsoft, "Dynamic-link library search order" and "LoadLibraryExW"; Python's documentation of
ctypes.CDLL (winmode) and os.add_dll_directory. Apple's dyld(1).
"""

from __future__ import annotations

import os
import platform as host
import re
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from llamalite.errors import LibraryIncompatible
from llamalite.libs.files.elf import ElfFile, read_elf
from llamalite.libs.files.macho import read_macho
from llamalite.libs.platforms import Platform, current_platform

_CACHE_MAGIC = b"glibc-ld.so.cache1.1"
_CACHE_HEADER_BYTES = 48
_CACHE_ENTRY = struct.Struct("=iIIIQ")
_TRIPLETS = {"x64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}

# DLLs that every Windows with a desktop has; taken as there when another machine is described.
_WINDOWS_DLLS = re.compile(
    r"advapi32|bcrypt|bcryptprimitives|cfgmgr32|combase|comctl32|crypt32|d3d11|d3d12|dbghelp"
    r"|dnsapi|dxgi|gdi32|imm32|iphlpapi|kernel32|kernelbase|msvcrt|mswsock|ncrypt|normaliz|ntdll"
    r"|ole32|oleaut32|pdh|powrprof|psapi|rpcrt4|sechost|secur32|setupapi|shell32|shlwapi|ucrtbase"
    r"|user32|userenv|version|wininet|winmm|wintrust|ws2_32"
)
# Names of interfaces, not of files: Windows itself knows which DLL stands behind each.
_API_SETS = ("api-ms-win-", "ext-ms-")


def glibc_version() -> tuple[int, ...] | None:
    """Return this process's glibc version, or None where the C library is another one."""
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):
        return None
    match = re.fullmatch(r"glibc (\d+(?:\.\d+)+)", text)
    return tuple(map(int, match[1].split("."))) if match else None


def macos_version() -> tuple[int, ...] | None:
    """Return the version of macOS, such as (13, 6), or None elsewhere and where it isn't told."""
    numbers = tuple(map(int, re.findall(r"\d+", host.mac_ver()[0])))[:3]
    # NOTE: programs built with a tool chain older than macOS 11 are told 10.16 ever after.
    return None if not numbers or numbers[:2] == (10, 16) else numbers


def this_machine() -> Machine:
    """Describe the machine this process runs on.

    Raises:
        LibraryIncompatible: libllama isn't built for it.
    """
    return Machine(current_platform(), glibc=glibc_version(), macos=macos_version())


@dataclass(frozen=True)
class Machine:
    """A platform, its C library and where its loader searches.

    Attributes:
        glibc: version numbers, or None where the C library isn't glibc.
        folders: searched instead of this system's own places; None for the real ones.
        macos: version numbers, or None on other systems and where it isn't known.
    """

    platform: Platform
    glibc: tuple[int, ...] | None = None
    folders: tuple[Path, ...] | None = None
    macos: tuple[int, ...] | None = None
    _read: dict[Path, ElfFile | None] = field(default_factory=dict, compare=False, repr=False)

    def find(self, name: str, first: Iterable[Path] = ()) -> ElfFile | None:
        """Find the library Linux's loader would take for a needed name, or None.

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
        yield from (
            folder / name
            for folder in (*self._program_rpath, *_split_path("LD_LIBRARY_PATH"), *first)
        )
        yield from loader_cache_paths(self._cache, name)
        yield from (folder / name for folder in self._standard_folders)

    def has_dll(self, name: str, *, on_path: bool = False) -> bool:
        """Say whether Windows would find a DLL that doesn't lie beside the one that imports it.

        A DLL that ctypes opens by its full path brings what it imports from its own folder, the
        program's (python.exe has vcruntime140.dll beside it), the folders given to
        os.add_dll_directory (which can't be listed) and System32: not from PATH.

        Args:
            name: as in another DLL's imports.
            on_path: search PATH too, as ggml does for the backends it opens itself.
        """
        stem = name.lower().removesuffix(".dll")
        if stem.startswith(_API_SETS):
            return True
        if self.folders is not None and _WINDOWS_DLLS.fullmatch(stem):
            return True
        folders = list(self._windows_folders)
        if on_path and self.folders is None:
            folders += _split_path("PATH")
        return any((folder / each).is_file() for folder in folders for each in (name, name.lower()))

    @property
    def _windows_folders(self) -> tuple[Path, ...]:
        if self.folders is not None:
            return self.folders
        # In a virtual environment, the program that runs is the base environment's.
        program = Path(getattr(sys, "_base_executable", None) or sys.executable or ".")
        system = Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32"
        return (program.parent, Path(sys.base_prefix), system)

    def dylib_paths(self, name: str, loader: Path, rpaths: Iterable[str]) -> Iterable[Path]:
        """Yield the places where macOS looks for a library that is no part of macOS, in order.

        Args:
            name: as in another library's needs, such as `@rpath/libx.dylib`.
            loader: folder of the library that asks.
            rpaths: that library's own search folders, as they stand in it.
        """
        leaf = Path(name).name
        if self.folders is None:
            yield from (folder / leaf for folder in _split_path("DYLD_LIBRARY_PATH"))
        program = Path(sys.executable or ".").resolve().parent
        if name.startswith("@rpath/"):
            rest = name.removeprefix("@rpath/")
            yield from (_expand(rpath, loader, program) / rest for rpath in rpaths)
            yield from (_expand(rpath, program, program) / rest for rpath in self._program_rpaths)
        else:
            yield _expand(name, loader, program)
        if self.folders is not None:
            yield from (folder / leaf for folder in self.folders)
        else:
            fallback = _split_path("DYLD_FALLBACK_LIBRARY_PATH") or [Path("/usr/local/lib")]
            yield from (folder / leaf for folder in fallback)

    @cached_property
    def _program_rpaths(self) -> tuple[str, ...]:
        """The interpreter's own LC_RPATHs, which hold for all that it loads."""
        try:
            program = read_macho(Path(sys.executable).resolve(), program=True)
        except LibraryIncompatible:
            return ()
        image = program.image(self.platform.arch)
        return image.rpaths if image else ()

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


def is_part_of_macos(name: str) -> bool:
    """Say whether a library asked for comes with macOS; since 11 those are no files."""
    return name.startswith(("/usr/lib/", "/System/"))


def _split_path(variable: str) -> list[Path]:
    return [Path(part) for part in os.environ.get(variable, "").split(os.pathsep) if part]


def _expand(name: str, loader: Path, program: Path) -> Path:
    """Replace the variable a macOS path may begin with; pathlib takes absolute ones as they are."""
    for variable, folder in (("@loader_path", loader), ("@executable_path", program)):
        if name == variable or name.startswith(variable + "/"):
            return folder / name[len(variable) :].lstrip("/")
    return Path(name)


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
