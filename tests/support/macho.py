"""Writes tiny macOS libraries: header, load commands, one segment, no code; thin or universal."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

MACHINES = {"x64": (0x01000007, 3), "arm64": (0x0100000C, 0), "arm64e": (0x0100000C, 0x80000002)}


def macho_bytes(
    *,
    arch: str = "arm64",
    install_name: str | None = None,
    needed: Sequence[str] = (),
    weak: Sequence[str] = (),
    reexported: Sequence[str] = (),
    rpaths: Sequence[str] = (),
    minimum: tuple[int, int, int] | None = None,
    old_minimum: bool = False,
    kind: int = 6,
) -> bytes:
    """Return a 64-bit Mach-O library; `old_minimum` writes LC_VERSION_MIN_MACOSX."""
    named = [
        *((0xC, name) for name in needed),
        *((0x80000018, name) for name in weak),
        *((0x8000001F, name) for name in reexported),
        *((0x8000001C, name) for name in rpaths),
    ]
    if install_name is not None:
        named.insert(0, (0xD, install_name))
    commands = [_named(command, name) for command, name in named]
    if minimum is not None:
        packed = minimum[0] << 16 | minimum[1] << 8 | minimum[2]
        if old_minimum:
            commands.append(struct.pack("<4I", 0x24, 16, packed, packed))
        else:
            commands.append(struct.pack("<6I", 0x32, 24, 1, packed, packed, 0))
    size = sum(map(len, commands)) + 72
    total = 32 + size + 16
    segment = struct.pack("<II16s4Q4I", 0x19, 72, b"__TEXT", 0, total, 0, total, 5, 5, 0, 0)
    header = struct.pack("<I2I5I", 0xFEEDFACF, *MACHINES[arch], kind, len(commands) + 1, size, 0, 0)
    return header + segment + b"".join(commands) + bytes(16)


def universal_bytes(*images: bytes, wide: bool = False) -> bytes:
    """Return a universal file of thin ones; `wide` writes its 64-bit form."""
    step = 32 if wide else 20
    offset = 8 + step * len(images)
    table, body = b"", b""
    for image in images:
        kind = struct.unpack_from("<II", image, 4)
        place = offset + len(body)
        if wide:
            table += struct.pack(">IIQQII", *kind, place, len(image), 0, 0)
        else:
            table += struct.pack(">5I", *kind, place, len(image), 0)
        body += image
    magic = 0xCAFEBABF if wide else 0xCAFEBABE
    return struct.pack(">II", magic, len(images)) + table + body


def write_macho(path: Path, **fields: object) -> Path:
    """Write a thin one; the fields are `macho_bytes`'s."""
    path.write_bytes(macho_bytes(**fields))  # type: ignore[arg-type]
    return path


def _named(command: int, name: str) -> bytes:
    """A library's load command has three more numbers between its head and its name."""
    start = 12 if command == 0x8000001C else 24
    text = name.encode() + b"\0"
    size = (start + len(text) + 7) // 8 * 8
    return (struct.pack("<III", command, size, start).ljust(start, b"\0") + text).ljust(size, b"\0")
