"""What an ELF shared library needs, read from the file in Python.

Owns the format: program headers, the dynamic section, symbol version needs and definitions.
Doesn't know which machine is here or which libraries are good. Every offset and count is checked
against the file, so malformed input raises LibraryIncompatible and nothing else. Imports the
standard library and `llamalite.errors` alone.

Source: System V ABI (gabi) chapters 4 and 5; Linux Standard Base, symbol versioning.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from llamalite.errors import LibraryIncompatible

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
_MAX_NAME = 4_096
_USUAL_NAME = 64


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


class _Malformed(Exception):
    """Says what is wrong; read_elf turns it into LibraryIncompatible."""


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
    try:
        with open(path, "rb") as stream:
            return _Reader(path, stream).read((_ET_DYN, _ET_EXEC) if program else (_ET_DYN,))
    except OSError as error:
        raise LibraryIncompatible(f"{path} can't be read: {error.strerror or error}") from None
    except (_Malformed, struct.error, OverflowError, ValueError) as error:
        raise LibraryIncompatible(
            f"{path} is a damaged or cut-off shared library ({error}): fetch it again"
        ) from None


def _order(header: bytes) -> str:
    return ">" if header[5:6] == b"\x02" else "<"


class _Reader:
    """One pass over one file; every read is checked against its size."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self.stream = stream
        self.n_bytes = os.fstat(stream.fileno()).st_size
        self.order = "<"
        self.segments: list[tuple[int, int, int]] = []
        self.strings = 0

    def read(self, kinds: tuple[int, ...]) -> ElfFile:
        header = self.at(0, 64)
        if header[:4] != b"\x7fELF":
            raise _Malformed("it doesn't begin with ELF's magic")
        if header[4] != 2:
            raise _Malformed("it is not a 64-bit one")
        self.order = _order(header)
        kind = self.unpack("H", header, 16)[0]
        if kind not in kinds:
            raise _Malformed(f"it is ELF type {kind}, which is no shared library")
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

    def at(self, offset: int, size: int) -> bytes:
        if offset < 0 or offset + size > self.n_bytes:
            raise _Malformed(f"{size} bytes at {offset} lie outside its {self.n_bytes}")
        self.stream.seek(offset)
        found = self.stream.read(size)
        if len(found) != size:
            raise _Malformed("it ended while it was read")
        return found

    def unpack(self, fields: str, block: bytes, offset: int = 0) -> tuple[Any, ...]:
        return struct.unpack_from(self.order + fields, block, offset)

    def dynamic_section(self, header: bytes) -> list[tuple[int, int]]:
        (table,) = self.unpack("Q", header, 32)
        entry_size, n_entries = self.unpack("HH", header, 54)
        if entry_size < 56:
            raise _Malformed("its program headers are too small")
        where = None
        for index in range(n_entries):
            entry = self.at(table + index * entry_size, 56)
            kind, _flags, offset, address, _physical, size = self.unpack("IIQQQQ", entry)
            if kind == _PT_LOAD:
                # A mapping past the end of the file would kill the process when it is touched.
                if offset + size > self.n_bytes:
                    raise _Malformed(f"it has {self.n_bytes:,} of at least {offset + size:,} bytes")
                self.segments.append((address, offset, size))
            elif kind == _PT_DYNAMIC:
                where = offset, size
        if where is None:
            raise _Malformed("it has no dynamic section")
        offset, size = where
        block = self.at(offset, min(size, 16 * _MAX_DYNAMIC, max(self.n_bytes - offset, 0)))
        entries: list[tuple[int, int]] = []
        for position in range(0, len(block) - 15, 16):
            tag, value = self.unpack("QQ", block, position)
            if tag == _DT_NULL:
                break
            entries.append((tag, value))
        return entries

    def offset_of(self, address: int) -> int:
        for start, offset, size in self.segments:
            if start <= address < start + size:
                return offset + address - start
        raise _Malformed(f"address {address:#x} is in no segment")

    def string(self, index: int) -> str:
        start = self.strings + index
        if not self.strings or start >= self.n_bytes:
            raise _Malformed(f"string {index} lies outside it")
        for limit in (_USUAL_NAME, _MAX_NAME):
            block = self.at(start, min(limit, self.n_bytes - start))
            text, end, _rest = block.partition(b"\0")
            if end:
                return text.decode("utf-8", "replace")
        raise _Malformed(f"string {index} has no end")

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
            _version, count, name, inner, following = self.unpack("HHIII", self.at(position, 16))
            library = self.string(name)
            place = position + inner
            for _ in range(count):
                budget -= 1
                if budget < 0:
                    raise _Malformed("it lists too many symbol versions")
                _hash, flags, _other, wanted, step = self.unpack("IHHII", self.at(place, 16))
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
            block = self.at(position, 20)
            _version, _flags, _index, count, _hash, inner, following = self.unpack("HHHHIII", block)
            if count:
                (name,) = self.unpack("I", self.at(position + inner, 4))
                yield self.string(name)
            if not following:
                return
            position += following
