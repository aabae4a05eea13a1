"""Writes tiny Windows DLLs: headers, one section, import and delay-import tables, no code."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

MACHINES = {"x64": 0x8664, "arm64": 0xAA64}

_SECTION_AT, _SECTION_ADDRESS = 0x200, 0x1000


def pe_bytes(
    *,
    arch: str = "x64",
    imports: Sequence[str] = (),
    delay_imports: Sequence[str] = (),
    delay_by_address: bool = False,
    magic: int = 0x20B,
    characteristics: int = 0x2022,
) -> bytes:
    """Return a PE32+ DLL that imports from the DLLs named.

    `delay_by_address` writes the old form of the delay table, with addresses instead of offsets
    from the image's start.
    """
    image_base = 0x1_0000
    tables_bytes = 20 * (len(imports) + 1) + 32 * (len(delay_imports) + 1)
    names, at = b"", {}
    for name in (*imports, *delay_imports):
        at[name] = _SECTION_ADDRESS + tables_bytes + len(names)
        names += name.encode() + b"\0"
    section = b"".join(struct.pack("<5I", 1, 0, 0, at[name], 1) for name in imports) + bytes(20)
    for name in delay_imports:
        place = at[name] + (image_base if delay_by_address else 0)
        section += struct.pack("<8I", not delay_by_address, place, *[0] * 6)
    section += bytes(32) + names
    directories = [(0, 0)] * 16
    if imports:
        directories[1] = (_SECTION_ADDRESS, 20 * len(imports) + 20)
    if delay_imports:
        directories[13] = (_SECTION_ADDRESS + 20 * len(imports) + 20, 32 * len(delay_imports) + 32)
    optional = bytearray(112) + b"".join(struct.pack("<II", *each) for each in directories)
    struct.pack_into("<H", optional, 0, magic)
    struct.pack_into("<Q", optional, 24, image_base)
    struct.pack_into("<I", optional, 108, len(directories))
    coff = struct.pack("<HHIIIHH", MACHINES[arch], 1, 0, 0, 0, len(optional), characteristics)
    table = b".rdata".ljust(8, b"\0") + struct.pack(
        "<IIII16x", len(section), _SECTION_ADDRESS, len(section), _SECTION_AT
    )
    dos = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 64)
    head = dos + b"PE\0\0" + coff + bytes(optional) + table
    assert len(head) <= _SECTION_AT
    return head.ljust(_SECTION_AT, b"\0") + section


def write_pe(path: Path, **fields: object) -> Path:
    """Write such a DLL; the fields are `pe_bytes`'s."""
    path.write_bytes(pe_bytes(**fields))  # type: ignore[arg-type]
    return path
