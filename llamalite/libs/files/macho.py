"""What a macOS library needs, read from the file in Python.

Owns the format: thin and universal 64-bit Mach-O files and their load commands. Doesn't know which
machine is here or where dyld searches. Malformed input raises LibraryIncompatible and nothing
else. Imports the standard library, `llamalite.errors` and `bounded`.

Source: Apple's mach-o/loader.h and mach-o/fat.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llamalite.libs.files.bounded import BinaryFile, Malformed, parse

_MAGIC_64, _MAGIC_32 = b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe"
_UNIVERSAL, _UNIVERSAL_64 = b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf"
_X64, _ARM64, _X86 = 0x01000007, 0x0100000C, 7
_ARM64E = 2
_PROGRAM, _LIBRARY, _BUNDLE = 2, 6, 8
_SEGMENT, _VERSION_MIN, _BUILD_VERSION, _RPATH, _OWN_NAME = 0x19, 0x24, 0x32, 0x8000001C, 0xD
_LOAD, _LOAD_WEAK, _REEXPORT, _LOAD_UPWARD = 0xC, 0x80000018, 0x8000001F, 0x80000023
_MACOS = 1
# Bounds on what is followed, far above any real library. Java class files share the universal
# magic; their next number is a version above 40.
_MAX_IMAGES = 20
_MAX_COMMANDS = 8_192
_MAX_COMMAND_BYTES = 1 << 24


@dataclass(frozen=True)
class MachImage:
    """One processor's part of a library, as far as it decides whether it can be loaded.

    Attributes:
        machine: `x64`, `arm64`, another name, or `machine N` for an unknown number.
        install_name: the name other libraries ask for it by, or None (loadable modules).
        needed: libraries it asks for, in order, `@rpath/` and the like as they stand.
        optional: libraries it does without where they are absent.
        rpaths: its own search folders, as they stand.
        minimum: oldest macOS it was built for, such as (14, 0), or None.
    """

    machine: str
    install_name: str | None
    needed: tuple[str, ...]
    optional: tuple[str, ...]
    rpaths: tuple[str, ...]
    minimum: tuple[int, ...] | None


@dataclass(frozen=True)
class MachFile:
    """A macOS library: one image, or several in a universal file."""

    path: Path
    images: tuple[MachImage, ...]

    def image(self, machine: str) -> MachImage | None:
        """Return the image for a processor, or None."""
        return next((image for image in self.images if image.machine == machine), None)


def macho_machines(head: bytes) -> tuple[str, ...]:
    """Name the machines in the beginning of a Mach-O file; () if it is none.

    Raises:
        struct.error: the headers lie behind the bytes given.
    """
    magic = head[:4]
    if magic in (_MAGIC_64, _MAGIC_32):
        return (_machine(*struct.unpack_from("<II", head, 4)),)
    if magic not in (_UNIVERSAL, _UNIVERSAL_64):
        return ()
    (count,) = struct.unpack_from(">I", head, 4)
    if not 0 < count < _MAX_IMAGES:
        return ()
    step = 20 if magic == _UNIVERSAL else 32
    return tuple(_machine(*struct.unpack_from(">II", head, 8 + i * step)) for i in range(count))


def read_macho(path: Path, *, program: bool = False) -> MachFile:
    """Read what a library needs, for each processor it is for.

    Args:
        path: the file.
        program: accept a program as well.

    Raises:
        LibraryIncompatible: the file can't be read, isn't such a library, or is malformed.
    """
    kinds = (_LIBRARY, _BUNDLE, _PROGRAM) if program else (_LIBRARY, _BUNDLE)

    def read(file: BinaryFile) -> MachFile:
        parts = list(_parts(file))
        return MachFile(path, tuple(_Reader(file, *part).read(kinds) for part in parts))

    return parse(path, read)


def _machine(number: int, subtype: int) -> str:
    if number == _ARM64 and subtype & 0xFFFFFF == _ARM64E:
        return "arm64e"
    names = {_X64: "x64", _ARM64: "arm64", _X86: "x86 (32-bit)"}
    return names.get(number, f"machine {number:#x}")


def _parts(file: BinaryFile) -> Iterator[tuple[int, int]]:
    """Yield where each image lies: offset and size in bytes."""
    head = file.at(0, 8)
    wide = head[:4] == _UNIVERSAL_64
    if not wide and head[:4] != _UNIVERSAL:
        yield 0, file.n_bytes
        return
    (count,) = struct.unpack_from(">I", head, 4)
    if not 0 < count < _MAX_IMAGES:
        raise Malformed(f"it claims to hold {count} images")
    step, fields = (32, ">QQ") if wide else (20, ">II")
    for index in range(count):
        offset, size = struct.unpack_from(fields, file.at(8 + index * step, step), 8)
        file.check_end(offset + size)
        yield offset, size


class _Reader:
    """One pass over one image."""

    def __init__(self, file: BinaryFile, start: int, n_bytes: int) -> None:
        self.file = file
        self.start = start
        self.n_bytes = n_bytes
        self.found: dict[int, list[str]] = {}
        self.minimum: tuple[int, ...] | None = None

    def read(self, kinds: tuple[int, ...]) -> MachImage:
        header = self.file.at(self.start, 32)
        if header[:4] == _MAGIC_32:
            raise Malformed("it is not a 64-bit one")
        if header[:4] != _MAGIC_64:
            raise Malformed("it doesn't begin with Mach-O's magic")
        machine, subtype, kind, n_commands, size = self.file.unpack("5I", header, 4)
        if kind not in kinds:
            raise Malformed(f"it is Mach-O type {kind}, which is no shared library")
        if n_commands > _MAX_COMMANDS or size > min(_MAX_COMMAND_BYTES, self.n_bytes - 32):
            raise Malformed(f"its {n_commands} load commands take {size} bytes")
        self._read_commands(n_commands, self.file.at(self.start + 32, size))
        needed = [name for kind in (_LOAD, _REEXPORT, _LOAD_UPWARD) for name in self._of(kind)]
        return MachImage(
            machine=_machine(machine, subtype),
            install_name=next(iter(self._of(_OWN_NAME)), None),
            needed=tuple(needed),
            optional=tuple(self._of(_LOAD_WEAK)),
            rpaths=tuple(self._of(_RPATH)),
            minimum=self.minimum,
        )

    def _of(self, kind: int) -> list[str]:
        return self.found.get(kind, [])

    def _read_commands(self, count: int, block: bytes) -> None:
        position = 0
        for _ in range(count):
            kind, size = self.file.unpack("II", block, position)
            if size < 8 or position + size > len(block):
                raise Malformed(f"a load command at {position} has {size} bytes")
            self._read_command(kind, block[position : position + size])
            position += size

    def _read_command(self, kind: int, command: bytes) -> None:
        if kind == _SEGMENT:
            offset, size = self.file.unpack("QQ", command, 40)
            self.file.check_end(self.start + offset + size)
        elif kind == _VERSION_MIN:
            self.minimum = _version(self.file.unpack("I", command, 8)[0])
        elif kind == _BUILD_VERSION:
            system, oldest = self.file.unpack("II", command, 8)
            if system == _MACOS:
                self.minimum = _version(oldest)
        elif kind in (_LOAD, _LOAD_WEAK, _REEXPORT, _LOAD_UPWARD, _RPATH, _OWN_NAME):
            (at,) = self.file.unpack("I", command, 8)
            name = command[at:].partition(b"\0")[0]
            if not 12 <= at < len(command) or not name:
                raise Malformed(f"a load command's name lies at {at} of its {len(command)} bytes")
            self.found.setdefault(kind, []).append(name.decode("utf-8", "replace"))


def _version(packed: int) -> tuple[int, ...]:
    major, minor, patch = packed >> 16, packed >> 8 & 0xFF, packed & 0xFF
    return (major, minor, patch) if patch else (major, minor)
