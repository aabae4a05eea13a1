"""Platforms libllama is built for, and how its files are named on each.

Owns the (system, architecture) pair and the naming eras of libllama's files. Knows nothing about
what is inside a file. Imports the standard library and `llamalite.errors` alone.
"""

from __future__ import annotations

import platform
import re
import struct
import sys
import sysconfig
from dataclasses import dataclass
from typing import Literal

from llamalite.errors import InvalidParameter, LibraryIncompatible

System = Literal["linux", "macos", "windows"]
Arch = Literal["x64", "arm64"]

_ARCHES: dict[str, Arch] = {
    "x86_64": "x64",
    "amd64": "x64",
    "aarch64": "arm64",
    "arm64": "arm64",
}
_SYSTEMS: dict[str, System] = {"linux": "linux", "darwin": "macos", "win32": "windows"}
_SUFFIXES: dict[System, str] = {"linux": "so", "macos": "dylib", "windows": "dll"}


@dataclass(frozen=True)
class Platform:
    """A system and processor architecture that prebuilt libraries exist for."""

    os: System
    arch: Arch

    def __str__(self) -> str:
        return f"{self.os}-{self.arch}"

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read `linux-x64` and the like.

        Raises:
            InvalidParameter: no library is built for that.
        """
        for known in ALL_PLATFORMS:
            if str(known) == text:
                return known
        names = ", ".join(map(str, ALL_PLATFORMS))
        raise InvalidParameter(
            f"no libllama is built for {text[:60]!r}: choose one of {names}", param="platform"
        )


ALL_PLATFORMS = (
    Platform("linux", "x64"),
    Platform("linux", "arm64"),
    Platform("macos", "x64"),
    Platform("macos", "arm64"),
    Platform("windows", "x64"),
    Platform("windows", "arm64"),
)


def current_platform() -> Platform:
    """Return the platform of this Python process (not of the machine, where they differ).

    A musl system counts as Linux here; whether a library's C library fits is for `check_loadable`.

    Raises:
        LibraryIncompatible: libllama isn't built for this system, processor or word size.
    """
    # NOTE: before Python 3.13, Android's Pythons call their system Linux.
    if sys.platform == "android" or hasattr(sys, "getandroidapilevel"):
        raise LibraryIncompatible(
            "no libllama is built for Android: run Python in a Linux distribution on it (in "
            "Termux, with proot-distro), where the Linux build can be used"
        )
    system = _SYSTEMS.get(sys.platform)
    if system == "windows":
        # NOTE: on ARM machines platform.machine() names the processor, though this Python may be
        # an emulated x64 one, which loads x64 libraries only. MSYS2's say mingw_x86_64_ucrt.
        named = re.search(r"amd64|x86_64|arm64|aarch64", sysconfig.get_platform())
        machine = named[0] if named else sysconfig.get_platform().removeprefix("win-")
    else:
        machine = platform.machine()
    arch = _ARCHES.get(machine.lower())
    if system is None or arch is None:
        raise LibraryIncompatible(
            f"no libllama is built for {sys.platform} on {machine}: build llama.cpp yourself and "
            f"point LLAMALITE_LIB at the folder, on a system among Linux, macOS and Windows"
        )
    if struct.calcsize("P") != 8:
        raise LibraryIncompatible(
            "this Python is a 32-bit one and libllama needs 64 bits: install a 64-bit Python"
        )
    return Platform(system, arch)


def is_here(platform: Platform) -> bool:
    """Say whether it is this process's platform; False where that has no libllama at all."""
    try:
        return platform == current_platform()
    except LibraryIncompatible:
        return False


def local_suffix() -> str:
    """Return the file name suffix of this system's shared libraries, without the dot."""
    return _SUFFIXES.get(_SYSTEMS.get(sys.platform, "linux"), "so")


_NAME = re.compile(
    r"""(?:lib)?
    (?P<stem>llama|mtmd|ggml(?:-[\w+.-]+?)?)
    (?:(?:\.[a-z]+)?\.(?P<tag>[bv]\d+(?:\.\d+)*))?
    (?:(?:\.(?P<version_before>\d+(?:\.\d+)*))?\.(?P<dylib>dylib)
      |\.(?P<so>so)(?:\.(?P<version_after>\d+(?:\.\d+)*))?
      |\.(?P<dll>dll))""",
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True)
class LibraryName:
    """What a file name of one of libllama's libraries says.

    Attributes:
        stem: `llama`, `ggml`, `ggml-base`, `mtmd`, or a backend such as `ggml-cpu-haswell`.
        tag: release in the name (`b6673`, `v0.5.0`), or None.
        version: numbers of the shared library's version (`0` or `0.9.5`), or "".
        suffix: `so`, `dylib` or `dll`.
    """

    stem: str
    tag: str | None
    version: str
    suffix: str


def parse_library_name(name: str) -> LibraryName | None:
    """Read a file name of any era; None if it is none of libllama's libraries.

    Eras: `libllama.so` (to b7021), `libllama.so.0` and `libllama.so.0.0.7300`,
    `libllama.0.dylib`, `llama.dll`; npm's `libllama.b6673.so`, `libllama.vulkan.v0.5.0.so`.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    version = match["version_before"] or match["version_after"] or ""
    suffix = match["so"] or match["dylib"] or match["dll"]
    return LibraryName(match["stem"], match["tag"], version, suffix)
