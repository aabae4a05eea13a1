"""Whether this machine's loader will take a libllama, told from the files alone.

Owns the checks that replace the loader's own errors by one clear line, for Linux, Windows and
macOS. Opens no library. Imports the standard library, `llamalite.errors` and the modules beside it.

Source: needs and load order of b5640 to b11739 as upstream, npm and PyPI publish them.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

from llamalite.errors import LibraryIncompatible
from llamalite.libs.files.binaries import recognise
from llamalite.libs.files.elf import ElfFile, read_elf
from llamalite.libs.files.folder import LibraryFiles, scan_folder
from llamalite.libs.files.machine import Machine, is_part_of_macos, this_machine
from llamalite.libs.files.macho import MachImage, read_macho
from llamalite.libs.files.pe import read_pe
from llamalite.libs.files.remedies import ANOTHER_BUILD, TOGETHER, where_from
from llamalite.libs.platforms import parse_library_name

__all__ = ["LibraryFiles", "check_loadable", "scan_folder"]


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
    machine = machine or this_machine()
    check = _CHECKS[machine.platform.os](files, machine)
    for path in files.core:
        check.require(path)
    problems = check.problems_of(files.backends)
    cpu = [path for path in files.backends if path.name.removeprefix("lib").startswith("ggml-cpu")]
    if cpu and all(path in problems for path in cpu):
        raise LibraryIncompatible(problems[cpu[0]])
    if files.mtmd is not None:
        problems |= check.problems_of([files.mtmd])
    return [*problems.values(), *check.notes]


class _LoadCheck(ABC):
    """Follows the needs of the libraries in one folder, each file once.

    Attributes:
        notes: lines about what will only be missed later.
    """

    def __init__(self, files: LibraryFiles, machine: Machine) -> None:
        self.files = files
        self.machine = machine
        self.notes: list[str] = []
        self._passed: set[Path] = set()
        # NOTE: loaders take a library that is already open by its own name, and ours are opened by
        # full path in load order, so a sibling counts under that name as well as its file's.
        self._by_own_name: dict[str, Path] = {}
        for path in (*files.core, *files.backends):
            try:
                self._by_own_name[self.own_name(path) or path.name] = path
            except LibraryIncompatible:
                continue  # reported when its own turn comes

    @abstractmethod
    def own_name(self, path: Path) -> str | None:
        """Return the name other libraries ask for this one by, where the file says one."""

    @abstractmethod
    def check_needs(self, path: Path) -> None:
        """Check what a library of the right kind needs; raises LibraryIncompatible."""

    def problems_of(self, paths: Iterable[Path]) -> dict[Path, str]:
        """Return what is wrong with those of the libraries that can't be loaded."""
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
        if path in self._passed:
            return
        self._passed.add(path)  # before its needs: they may lead back here
        try:
            self._check_kind(path)
            self.check_needs(path)
        except LibraryIncompatible:
            self._passed.discard(path)
            raise

    def sibling(self, name: str) -> Path | None:
        """Return the library in the same folder that answers to a name, or None."""
        beside = self.files.folder / name
        return beside if beside.is_file() else self._by_own_name.get(name)

    def missing(self, path: Path, name: str) -> LibraryIncompatible:
        """Return the error for a library that lies neither in the folder nor on the machine."""
        leaf = Path(name).name
        if parse_library_name(leaf) is not None:
            return LibraryIncompatible(
                f"{path} misses its sibling {leaf} in the same folder: {TOGETHER}"
            )
        return LibraryIncompatible(
            f"{path} needs {leaf}, which this machine doesn't have: "
            f"{where_from(leaf, self.machine.platform)}"
        )

    def _check_kind(self, path: Path) -> None:
        kind, platform = recognise(path), self.machine.platform
        if kind.os != platform.os or platform.arch not in kind.arches:
            raise LibraryIncompatible(
                f"{path} is built for {kind} and this is {platform}: {ANOTHER_BUILD}"
            )


class _LinuxCheck(_LoadCheck):
    def __init__(self, files: LibraryFiles, machine: Machine) -> None:
        self._read: dict[Path, ElfFile] = {}
        super().__init__(files, machine)

    def own_name(self, path: Path) -> str | None:
        return self._elf(path).soname

    def check_needs(self, path: Path) -> None:
        library = self._elf(path)
        self._check_glibc(library)
        for name in library.needed:
            sibling = self.sibling(name)
            if sibling is not None:
                self.require(sibling)
            else:
                self._check_outside(library, name)

    def _elf(self, path: Path) -> ElfFile:
        if path not in self._read:
            self._read[path] = read_elf(path)
        return self._read[path]

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
            f"{needs} and this machine has {_dotted(here)}: {ANOTHER_BUILD}, or use a newer system"
        )

    def _check_outside(self, library: ElfFile, name: str) -> None:
        found = self.machine.find(name, library.runpath)
        if found is None:
            raise self.missing(library.path, name)
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
                f"{_newest_like(newest, found.versions_defined)}: {ANOTHER_BUILD}, or use a newer "
                f"system"
            )


class _WindowsCheck(_LoadCheck):
    def own_name(self, path: Path) -> str | None:
        return None  # a DLL goes by its file's name

    def check_needs(self, path: Path) -> None:
        library = read_pe(path)
        for name in library.imports:
            sibling = self.sibling(name)
            if sibling is not None:
                self.require(sibling)
            elif not self._is_outside(path, name):
                raise self.missing(path, name)
        for name in library.delay_imports:
            if self.sibling(name) is None and not self._is_outside(path, name):
                self.notes.append(f"{self.missing(path, name)} (it is missed at the first use)")

    def sibling(self, name: str) -> Path | None:
        return super().sibling(name) or super().sibling(name.lower())

    def _is_outside(self, path: Path, name: str) -> bool:
        # ABI: ggml opens backends once more, by LoadLibraryW, which searches PATH.
        return self.machine.has_dll(name, on_path=path in self.files.backends)


class _MacCheck(_LoadCheck):
    def own_name(self, path: Path) -> str | None:
        image = self._image(path)
        return image.install_name if image else None

    def check_needs(self, path: Path) -> None:
        image = self._image(path)
        if image is None:
            return
        self._check_version(path, image)
        for name in image.needed:
            if is_part_of_macos(name):
                continue
            sibling = self._by_own_name.get(name) or self._beside(name, path, image)
            if sibling is not None:
                self.require(sibling)
            elif not self._is_outside(name, path, image):
                raise self.missing(path, name)

    def _image(self, path: Path) -> MachImage | None:
        return read_macho(path).image(self.machine.platform.arch)

    def _check_version(self, path: Path, image: MachImage) -> None:
        wanted, here = image.minimum, self.machine.macos
        if wanted is not None and here is not None and wanted > here:
            raise LibraryIncompatible(
                f"{path} needs macOS {_dotted(wanted)} and this is {_dotted(here)}: "
                f"{ANOTHER_BUILD}, or use a newer system"
            )

    def _beside(self, name: str, path: Path, image: MachImage) -> Path | None:
        for candidate in self.machine.dylib_paths(name, path.parent, image.rpaths):
            place = Path(os.path.normpath(candidate))
            if place.parent == self.files.folder and place.is_file():
                return place
        return None

    def _is_outside(self, name: str, path: Path, image: MachImage) -> bool:
        for candidate in self.machine.dylib_paths(name, path.parent, image.rpaths):
            try:
                if self.machine.platform.arch in recognise(candidate).arches:
                    return True
            except LibraryIncompatible:
                continue  # dyld too goes on to the next place
        return False


_CHECKS: dict[str, type[_LoadCheck]] = {
    "linux": _LinuxCheck,
    "windows": _WindowsCheck,
    "macos": _MacCheck,
}


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
