"""What an ELF shared library needs, read from the file in Python.

Owns the format: program headers, the dynamic section, symbol version needs and definitions.
Doesn't know which machine is here or which libraries are good. Malformed input raises
LibraryIncompatible and nothing else. Imports the standard library, `llamalite.errors` and
`bounded`.

Source: System V ABI (gabi) chapters 4 and 5; Linux Standard Base, symbol versioning.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llamalite.libs.files.bounded import BinaryFile, Malformed, parse

MACHINES = {
    62: "x64",
    183: "arm64",
    3: "x86 (32-bit)",
    40: "ARM (32-bit)",
    243: "riscv64",
    22: "s390x",
    21: "ppc64",
    258: "loongarch64",
}

_ET_EXEC, _ET_DYN = 2, 3
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 14, 15, 29
_DT_VERDEF, _DT_VERDEFNUM, _DT_VERNEED, _DT_VERNEEDNUM = (
    0x6FFFFFFC,
    0x6FFFFFFD,
    0x6FFFFFFE,
    0x6FFFFFFF,
)
_VER_FLG_WEAK = 2
# Bounds on what is followed, far above any real library.
_MAX_DYNAMIC = 65_536
_MAX_VERSIONS = 8_192


@dataclass(frozen=True)
class ElfFile:
    """The parts of an ELF shared library that decide whether it can be loaded.

    Attributes:
        machine: `x64`, `arm64`, another name, or `machine N` for an unknown number.
        soname: the name other libraries ask for it by, or None.
        needed: libraries it asks for, in order.
        versions_needed: (library, version) pairs it can't do without.
        versions_defined: symbol versions it offers.
        runpath: its own search folders (RUNPATH, else RPATH), `$ORIGIN` already replaced.
        rpath: the older RPATH alone, which also counts for libraries loaded by it.
    """

    path: Path
    machine: str
    soname: str | None
    needed: tuple[str, ...]
    versions_needed: tuple[tuple[str, str], ...]
    versions_defined: frozenset[str]
    runpath: tuple[Path, ...]
    rpath: tuple[Path, ...]


def elf_machine(header: bytes) -> str:
    """Name the machine in the first 20 bytes of an ELF file.

    Raises:
        struct.error: there are fewer bytes.
    """
    (number,) = struct.unpack_from(_order(header) + "H", header, 18)
    return MACHINES.get(number, f"machine {number}")


def read_elf(path: Path, *, program: bool = False) -> ElfFile:
    """Read a 64-bit ELF shared library's needs.

    Args:
        path: the file.
        program: accept a program as well.

    Raises:
        LibraryIncompatible: the file can't be read, isn't such a library, or is malformed.
    """
    kinds = (_ET_DYN, _ET_EXEC) if program else (_ET_DYN,)
    return parse(path, lambda file: _Reader(path, file).read(kinds))


def _order(header: bytes) -> str:
    return ">" if header[5:6] == b"\x02" else "<"


class _Reader:
    """One pass over one file."""

    def __init__(self, path: Path, file: BinaryFile) -> None:
        self.path = path
        self.file = file
        self.segments: list[tuple[int, int, int]] = []
        self.strings = 0

    def read(self, kinds: tuple[int, ...]) -> ElfFile:
        header = self.file.at(0, 64)
        if header[:4] != b"\x7fELF":
            raise Malformed("it doesn't begin with ELF's magic")
        if header[4] != 2:
            raise Malformed("it is not a 64-bit one")
        self.file.order = _order(header)
        kind = self.file.unpack("H", header, 16)[0]
        if kind not in kinds:
            raise Malformed(f"it is ELF type {kind}, which is no shared library")
        dynamic = self.dynamic_section(header)
        first = dict(reversed(dynamic))  # the first of each tag counts
        self.strings = self.offset_of(first[_DT_STRTAB]) if _DT_STRTAB in first else 0
        rpath = self.folders(first.get(_DT_RPATH))
        return ElfFile(
            path=self.path,
            machine=elf_machine(header),
            soname=self.string(first[_DT_SONAME]) if _DT_SONAME in first else None,
            needed=tuple(self.string(value) for tag, value in dynamic if tag == _DT_NEEDED),
            versions_needed=tuple(self.version_needs(first)),
            versions_defined=frozenset(self.version_definitions(first)),
            runpath=self.folders(first.get(_DT_RUNPATH)) or rpath,
            rpath=() if _DT_RUNPATH in first else rpath,
        )

    def dynamic_section(self, header: bytes) -> list[tuple[int, int]]:
        (table,) = self.file.unpack("Q", header, 32)
        entry_size, n_entries = self.file.unpack("HH", header, 54)
        if entry_size < 56:
            raise Malformed("its program headers are too small")
        where = None
        for index in range(n_entries):
            entry = self.file.at(table + index * entry_size, 56)
            kind, _flags, offset, address, _physical, size = self.file.unpack("IIQQQQ", entry)
            if kind == _PT_LOAD:
                self.file.check_end(offset + size)
                self.segments.append((address, offset, size))
            elif kind == _PT_DYNAMIC:
                where = offset, size
        if where is None:
            raise Malformed("it has no dynamic section")
        offset, size = where
        size = min(size, 16 * _MAX_DYNAMIC, max(self.file.n_bytes - offset, 0))
        block = self.file.at(offset, size)
        entries: list[tuple[int, int]] = []
        for position in range(0, len(block) - 15, 16):
            tag, value = self.file.unpack("QQ", block, position)
            if tag == _DT_NULL:
                break
            entries.append((tag, value))
        return entries

    def offset_of(self, address: int) -> int:
        for start, offset, size in self.segments:
            if start <= address < start + size:
                return offset + address - start
        raise Malformed(f"address {address:#x} is in no segment")

    def string(self, index: int) -> str:
        start = self.strings + index
        if not self.strings or start >= self.file.n_bytes:
            raise Malformed(f"string {index} lies outside it")
        return self.file.string(start)

    def folders(self, index: int | None) -> tuple[Path, ...]:
        if index is None:
            return ()
        origin = str(self.path.parent.resolve())
        entries = [
            entry.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)
            for entry in self.string(index).split(":")
        ]
        return tuple(Path(entry) for entry in entries if entry and "\0" not in entry)

    def version_needs(self, first: dict[int, int]) -> Iterator[tuple[str, str]]:
        if _DT_VERNEED not in first:
            return
        position = self.offset_of(first[_DT_VERNEED])
        budget = _MAX_VERSIONS
        for _ in range(min(first.get(_DT_VERNEEDNUM, 0), _MAX_VERSIONS)):
            block = self.file.at(position, 16)
            _version, count, name, inner, following = self.file.unpack("HHIII", block)
            library = self.string(name)
            place = position + inner
            for _ in range(count):
                budget -= 1
                if budget < 0:
                    raise Malformed("it lists too many symbol versions")
                block = self.file.at(place, 16)
                _hash, flags, _other, wanted, step = self.file.unpack("IHHII", block)
                if not flags & _VER_FLG_WEAK:
                    yield library, self.string(wanted)
                place += step
            if not following:
                return
            position += following

    def version_definitions(self, first: dict[int, int]) -> Iterator[str]:
        if _DT_VERDEF not in first:
            return
        position = self.offset_of(first[_DT_VERDEF])
        for _ in range(min(first.get(_DT_VERDEFNUM, 0), _MAX_VERSIONS)):
            block = self.file.at(position, 20)
            _head, _index, count, _hash, inner, following = self.file.unpack("IHHIII", block)
            if count:
                (name,) = self.file.unpack("I", self.file.at(position + inner, 4))
                yield self.string(name)
            if not following:
                return
            position += following
