"""Whether this machine's loader will take a libllama, told from the files alone.

Owns the checks that replace the loader's own errors by one clear line. Opens no library. Imports
the standard library, `llamalite.errors` and the readers beside it.

Source: needs and load order of b5640 to b11739 as upstream, npm and PyPI publish them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from llamalite.errors import LibraryIncompatible
from llamalite.libs.binaries import recognise
from llamalite.libs.elf import ElfFile, read_elf
from llamalite.libs.folder import LibraryFiles, scan_folder
from llamalite.libs.machine import Machine, this_machine
from llamalite.libs.platforms import parse_library_name

__all__ = ["LibraryFiles", "check_loadable", "scan_folder"]

_REMEDY = (
    "run `llamalite lib install` for a build that fits, or point LLAMALITE_LIB at another folder"
)
_TOGETHER = "put all the libraries of one build into one folder, or run `llamalite lib install`"
_WHERE_FROM = {
    "libgomp.so.1": "install GCC's OpenMP runtime (Debian and Ubuntu: libgomp1)",
    "libstdc++.so.6": "install the C++ runtime (Debian and Ubuntu: libstdc++6)",
    "libgcc_s.so.1": "install GCC's runtime (Debian and Ubuntu: libgcc-s1)",
    "libvulkan.so.1": "install the Vulkan loader (Debian and Ubuntu: libvulkan1)",
    "libcuda.so.1": "install NVIDIA's driver",
}


def check_loadable(files: LibraryFiles, machine: Machine | None = None) -> list[str]:
    """Check that the loader will take the libraries, before anything opens them.

    Args:
        files: what `scan_folder` found.
        machine: checked against; None for this one.

    Returns:
        One line for each optional library (a backend, mtmd) that can't be loaded here.

    Raises:
        LibraryIncompatible: a core library, or every CPU backend, can't be loaded.
    """
    check = _LoadCheck(files, machine or this_machine())
    for path in files.core:
        check.require(path)
    problems = check.problems_of(files.backends)
    cpu = [path for path in files.backends if path.name.removeprefix("lib").startswith("ggml-cpu")]
    if cpu and all(path in problems for path in cpu):
        raise LibraryIncompatible(problems[cpu[0]])
    if files.mtmd is not None:
        problems |= check.problems_of([files.mtmd])
    return list(problems.values())


class _LoadCheck:
    """Follows the needs of the libraries in one folder, each file once."""

    def __init__(self, files: LibraryFiles, machine: Machine) -> None:
        self.machine = machine
        self.folder = files.folder
        self.passed: set[Path] = set()
        self.read: dict[Path, ElfFile] = {}
        # NOTE: the loader takes a library that is already open by its soname, and ours are opened
        # by full path in load order, so a sibling counts under its soname as well as its name.
        self.by_soname: dict[str, Path] = {}
        for path in (*files.core, *files.backends) if machine.platform.os == "linux" else ():
            try:
                self.by_soname[self._elf(path).soname or path.name] = path
            except LibraryIncompatible:
                continue  # reported when its own turn comes

    def problems_of(self, paths: Iterable[Path]) -> dict[Path, str]:
        problems = {}
        for path in paths:
            try:
                self.require(path)
            except LibraryIncompatible as error:
                problems[path] = str(error)
        return problems

    def require(self, path: Path) -> None:
        """Check a library and, through its needs, all it brings with it.

        Raises:
            LibraryIncompatible: one of them can't be loaded here.
        """
        if path in self.passed:
            return
        self.passed.add(path)  # before its needs: they may lead back here
        try:
            self._check_kind(path)
            if self.machine.platform.os == "linux":
                self._check_needs(self._elf(path))
        except LibraryIncompatible:
            self.passed.discard(path)
            raise

    def _elf(self, path: Path) -> ElfFile:
        if path not in self.read:
            self.read[path] = read_elf(path)
        return self.read[path]

    def _check_kind(self, path: Path) -> None:
        kind, platform = recognise(path), self.machine.platform
        if kind.os != platform.os or platform.arch not in kind.arches:
            raise LibraryIncompatible(
                f"{path} is built for {kind} and this is {platform}: {_REMEDY}"
            )

    def _check_needs(self, library: ElfFile) -> None:
        self._check_glibc(library)
        for name in library.needed:
            beside = self.folder / name
            sibling = beside if beside.is_file() else self.by_soname.get(name)
            if sibling is not None:
                self.require(sibling)
            elif parse_library_name(name) is not None:
                raise LibraryIncompatible(
                    f"{library.path} misses its sibling {name} in the same folder: {_TOGETHER}"
                )
            else:
                self._check_outside(library, name)

    def _check_glibc(self, library: ElfFile) -> None:
        wanted = max(
            (_numbers(version) for _, version in library.versions_needed if _is_glibc(version)),
            default=None,
        )
        here = self.machine.glibc
        if wanted is None or (here is not None and wanted <= here):
            return
        needs = f"{library.path} needs glibc {_dotted(wanted)}"
        if here is None:
            raise LibraryIncompatible(
                f"{needs} and this system's C library is another one (musl?): build llama.cpp "
                f"here and point LLAMALITE_LIB at it"
            )
        raise LibraryIncompatible(
            f"{needs} and this machine has {_dotted(here)}: {_REMEDY}, or use a newer system"
        )

    def _check_outside(self, library: ElfFile, name: str) -> None:
        found = self.machine.find(name, library.runpath)
        if found is None:
            how = _WHERE_FROM.get(name, "install it")
            raise LibraryIncompatible(
                f"{library.path} needs {name}, which this machine doesn't have: {how}, or {_REMEDY}"
            )
        if not found.versions_defined:
            return
        lacking = [
            version
            for source, version in library.versions_needed
            if source == name and version not in found.versions_defined
        ]
        if lacking:
            newest = max(lacking, key=_numbers)
            raise LibraryIncompatible(
                f"{library.path} needs {name} with {newest}, and {found.path} "
                f"{_newest_like(newest, found.versions_defined)}: {_REMEDY}, or use a newer system"
            )


def _is_glibc(version: str) -> bool:
    return re.fullmatch(r"GLIBC_\d+(\.\d+)+", version) is not None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number[:9]) for number in re.findall(r"\d+", version))


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def _newest_like(version: str, defined: frozenset[str]) -> str:
    family = version.split("_")[0] + "_"
    known = [name for name in defined if re.fullmatch(re.escape(family) + r"[\d.]+", name)]
    return f"ends at {max(known, key=_numbers)}" if known else "doesn't have that"
