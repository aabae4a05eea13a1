"""Tells what kind of file a library is: ELF, PE or Mach-O, and for which processor.

Owns recognition by the first bytes. Doesn't know what a library needs (`elf`, `pe` and `macho` do)
or what this machine offers (`machine` does). Imports the standard library, `llamalite.errors` and
the readers beside it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from llamalite.errors import LibraryIncompatible
from llamalite.libs.files.bounded import open_regular
from llamalite.libs.files.elf import elf_machine
from llamalite.libs.files.macho import macho_machines
from llamalite.libs.files.pe import pe_machine
from llamalite.libs.platforms import System

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
        with open_regular(path) as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as error:
        raise LibraryIncompatible(f"{path} can't be read: {error.strerror or error}") from None
    try:
        kind = _kind(head)
    except struct.error:
        kind = None
    if kind is None:
        raise LibraryIncompatible(
            f"{path} is not a shared library ({_beginning(head)}): fetch it again with "
            f"`llamalite lib install`, or point LLAMALITE_LIB at a folder with libllama"
        )
    return kind


def _kind(head: bytes) -> BinaryKind | None:
    if head[:4] == b"\x7fELF":
        return BinaryKind("linux", (elf_machine(head),))
    machine = pe_machine(head)
    if machine is not None:
        return BinaryKind("windows", (machine,))
    machines = macho_machines(head)
    return BinaryKind("macos", machines) if machines else None


def _beginning(head: bytes) -> str:
    if not head:
        return "it is empty"
    start = head[:24].decode("utf-8", "replace")
    if start.isprintable() or start.strip().isprintable():
        return f"it begins with {start.strip()[:20]!r}"
    return f"it begins with bytes {head[:8].hex(' ')}"
