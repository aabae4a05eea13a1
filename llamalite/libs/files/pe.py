"""What a Windows DLL needs, read from the file in Python.

Owns the format: headers, section table, import and delay-import tables of PE32+ files. Doesn't
know which machine is here or which DLLs are part of Windows. Malformed input raises
LibraryIncompatible and nothing else. Imports the standard library, `llamalite.errors` and
`bounded`.

Source: Microsoft, "PE Format": COFF file header, optional header, .idata section, delay-load
import tables.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llamalite.libs.files.bounded import BinaryFile, Malformed, parse

MACHINES = {0x8664: "x64", 0xAA64: "arm64", 0xA641: "arm64", 0x14C: "x86 (32-bit)"}

_PE32_PLUS = 0x20B
_IS_DLL = 0x2000
_IMPORTS, _DELAY_IMPORTS = 1, 13
_USES_ADDRESSES_FROM_START = 1
_IMPORT_BYTES, _DELAY_IMPORT_BYTES = 20, 32
_MAX_DLLS = 1_024
_MAX_SECTIONS = 96  # Windows' own limit


@dataclass(frozen=True)
class PeFile:
    """The parts of a DLL that decide whether it can be loaded.

    Attributes:
        machine: `x64`, `arm64`, another name, or `machine N` for an unknown number.
        imports: DLLs it can't be loaded without, in order.
        delay_imports: DLLs it loads by itself when it first calls them.
    """

    path: Path
    machine: str
    imports: tuple[str, ...]
    delay_imports: tuple[str, ...]


def pe_machine(head: bytes) -> str | None:
    """Name the machine in the beginning of a PE file; None if it is none.

    Raises:
        struct.error: the headers lie behind the bytes given.
    """
    if head[:2] != b"MZ":
        return None
    (start,) = struct.unpack_from("<I", head, 0x3C)
    if head[start : start + 4] != b"PE\0\0":
        return None
    (number,) = struct.unpack_from("<H", head, start + 4)
    return MACHINES.get(number, f"machine {number:#x}")


def read_pe(path: Path) -> PeFile:
    """Read a 64-bit DLL's needs.

    Raises:
        LibraryIncompatible: the file can't be read, isn't such a DLL, or is malformed.
    """
    return parse(path, lambda file: _Reader(path, file).read())


class _Reader:
    """One pass over one file."""

    def __init__(self, path: Path, file: BinaryFile) -> None:
        self.path = path
        self.file = file
        self.base = 0
        self.sections: list[tuple[int, int, int]] = []

    def read(self) -> PeFile:
        file = self.file
        dos = file.at(0, 64)
        if dos[:2] != b"MZ":
            raise Malformed("it doesn't begin with MZ")
        (start,) = file.unpack("I", dos, 0x3C)
        coff = file.at(start, 24)
        if coff[:4] != b"PE\0\0":
            raise Malformed("it has no PE header")
        machine, n_sections = file.unpack("HH", coff, 4)
        optional_bytes, characteristics = file.unpack("HH", coff, 20)
        if not characteristics & _IS_DLL:
            raise Malformed("it is a program and no DLL")
        optional = file.at(start + 24, optional_bytes)
        (magic,) = file.unpack("H", optional)
        if magic != _PE32_PLUS:
            raise Malformed("it is not a 64-bit one")
        (self.base,) = file.unpack("Q", optional, 24)
        self._read_sections(start + 24 + optional_bytes, n_sections)
        return PeFile(
            path=self.path,
            machine=MACHINES.get(machine, f"machine {machine:#x}"),
            imports=tuple(self._imports(optional)),
            delay_imports=tuple(self._delay_imports(optional)),
        )

    def _read_sections(self, table: int, count: int) -> None:
        if count > _MAX_SECTIONS:
            raise Malformed(f"it has {count} sections")
        block = self.file.at(table, 40 * count)
        for index in range(count):
            _virtual, address, size, offset = self.file.unpack("IIII", block, 40 * index + 8)
            self.file.check_end(offset + size)
            self.sections.append((address, offset, size))

    def _offset_of(self, address: int) -> int:
        for start, offset, size in self.sections:
            if start <= address < start + size:
                return offset + address - start
        raise Malformed(f"address {address:#x} is in no section")

    def _entries(self, optional: bytes, directory: int, size: int) -> Iterator[bytes]:
        """Yield the entries of a table of the given directory; nothing where there is none."""
        (n_directories,) = self.file.unpack("I", optional, 108)
        if directory >= n_directories:
            return
        (address,) = self.file.unpack("I", optional, 112 + 8 * directory)
        if not address:
            return
        # NOTE: the loader goes by the empty last entry, not by the directory's size.
        position = self._offset_of(address)
        for index in range(_MAX_DLLS):
            yield self.file.at(position + index * size, size)
        raise Malformed("it imports too many DLLs")

    def _imports(self, optional: bytes) -> Iterator[str]:
        for entry in self._entries(optional, _IMPORTS, _IMPORT_BYTES):
            name, functions = self.file.unpack("II", entry, 12)
            if not name or not functions:
                return
            yield self.file.string(self._offset_of(name))

    def _delay_imports(self, optional: bytes) -> Iterator[str]:
        for entry in self._entries(optional, _DELAY_IMPORTS, _DELAY_IMPORT_BYTES):
            attributes, name = self.file.unpack("II", entry)
            if not name:
                return
            if not attributes & _USES_ADDRESSES_FROM_START:
                name -= self.base
            yield self.file.string(self._offset_of(name))
