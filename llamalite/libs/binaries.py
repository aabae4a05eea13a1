"""Tells what kind of file a library is: ELF, PE or Mach-O, and for which processor.

Owns recognition by the first bytes. Doesn't know what a library needs (`elf` does) or what this
machine offers (`machine` does). Imports the standard library and `llamalite.errors` alone.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from llamalite.errors import LibraryIncompatible
from llamalite.libs.elf import elf_machine
from llamalite.libs.platforms import System

_PE_MACHINES = {0x8664: "x64", 0xAA64: "arm64", 0xA641: "arm64", 0x14C: "x86 (32-bit)"}
_MACHO_MACHINES = {0x01000007: "x64", 0x0100000C: "arm64", 7: "x86 (32-bit)"}
_HEAD_BYTES = 4096


@dataclass(frozen=True)
class BinaryKind:
    """System a shared library is for, and its processors (several in a universal Mach-O)."""

    os: System
    arches: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.os}-{'+'.join(self.arches)}"


def recognise(path: Path) -> BinaryKind:
    """Tell which system and processor a library file is for.

    Raises:
        LibraryIncompatible: it can't be read, or is no shared library of a known format.
    """
    try:
        with open(path, "rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as error:
        raise LibraryIncompatible(f"{path} can't be read: {error.strerror or error}") from None
    try:
        kind = _elf(head) or _pe(head) or _macho(head)
    except struct.error:
        kind = None
    if kind is None:
        raise LibraryIncompatible(
            f"{path} is not a shared library ({_beginning(head)}): fetch it again with "
            f"`llamalite lib install`, or point LLAMALITE_LIB at a folder with libllama"
        )
    return kind


def _elf(head: bytes) -> BinaryKind | None:
    if head[:4] != b"\x7fELF":
        return None
    return BinaryKind("linux", (elf_machine(head),))


def _pe(head: bytes) -> BinaryKind | None:
    if head[:2] != b"MZ":
        return None
    (start,) = struct.unpack_from("<I", head, 0x3C)
    if head[start : start + 4] != b"PE\0\0":
        return None
    (machine,) = struct.unpack_from("<H", head, start + 4)
    return BinaryKind("windows", (_PE_MACHINES.get(machine, f"machine {machine:#x}"),))


def _macho(head: bytes) -> BinaryKind | None:
    magic = head[:4]
    if magic in (b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe"):
        (machine,) = struct.unpack_from("<I", head, 4)
        return BinaryKind("macos", (_macho_machine(machine),))
    if magic in (b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf"):
        (count,) = struct.unpack_from(">I", head, 4)
        # NOTE: Java class files share the first magic; their next number is a version above 40.
        if not 0 < count < 20:
            return None
        step = 20 if magic[3] == 0xBE else 32
        machines = [struct.unpack_from(">I", head, 8 + i * step)[0] for i in range(count)]
        return BinaryKind("macos", tuple(_macho_machine(machine) for machine in machines))
    return None


def _macho_machine(number: int) -> str:
    return _MACHO_MACHINES.get(number, f"machine {number:#x}")


def _beginning(head: bytes) -> str:
    if not head:
        return "it is empty"
    start = head[:24].decode("utf-8", "replace")
    if start.isprintable() or start.strip().isprintable():
        return f"it begins with {start.strip()[:20]!r}"
    return f"it begins with bytes {head[:8].hex(' ')}"
