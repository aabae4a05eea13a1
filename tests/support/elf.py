"""Writes tiny but real ELF shared libraries: headers, dynamic section, symbol versions, no code."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

MACHINES = {"x64": 62, "arm64": 183}


class _Strings:
    def __init__(self) -> None:
        self.block = bytearray(b"\0")

    def add(self, text: str) -> int:
        position = len(self.block)
        self.block += text.encode() + b"\0"
        return position


def elf_bytes(
    *,
    arch: str = "x64",
    soname: str | None = None,
    needed: Sequence[str] = (),
    versions: Mapping[str, Sequence[str]] | None = None,
    defines: Sequence[str] = (),
    runpath: str | None = None,
) -> bytes:
    """Return an ELF64 little-endian shared library with the given needs and definitions."""
    strings = _Strings()
    dynamic = [(1, strings.add(name)) for name in needed]
    if soname is not None:
        dynamic.append((14, strings.add(soname)))
    if runpath is not None:
        dynamic.append((29, strings.add(runpath)))
    needs, definitions = _needs(strings, versions or {}), _definitions(strings, defines)
    entries = len(dynamic) + 2 + 2 * bool(needs) + 2 * bool(definitions)
    at = 64 + 2 * 56
    strings_at = at + 16 * entries
    needs_at = strings_at + len(strings.block)
    definitions_at = needs_at + len(needs)
    end = definitions_at + len(definitions)
    dynamic.append((5, strings_at))
    if needs:
        dynamic += [(0x6FFFFFFE, needs_at), (0x6FFFFFFF, len(versions or {}))]
    if definitions:
        dynamic += [(0x6FFFFFFC, definitions_at), (0x6FFFFFFD, len(defines))]
    dynamic.append((0, 0))
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 3, MACHINES[arch], 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, end, end, 0x1000)
    table = struct.pack("<IIQQQQQQ", 2, 6, at, at, at, 16 * entries, 16 * entries, 8)
    body = b"".join(struct.pack("<QQ", tag, value) for tag, value in dynamic)
    return header + load + table + body + bytes(strings.block) + needs + definitions


def write_elf(path: Path, **fields: object) -> Path:
    """Write such a library; the fields are `elf_bytes`'s."""
    path.write_bytes(elf_bytes(**fields))  # type: ignore[arg-type]
    return path


def _needs(strings: _Strings, versions: Mapping[str, Sequence[str]]) -> bytes:
    block = b""
    for index, (library, names) in enumerate(versions.items()):
        following = 0 if index == len(versions) - 1 else 16 + 16 * len(names)
        block += struct.pack("<HHIII", 1, len(names), strings.add(library), 16, following)
        for position, name in enumerate(names):
            step = 0 if position == len(names) - 1 else 16
            block += struct.pack("<IHHII", 0, 0, 2, strings.add(name), step)
    return block


def _definitions(strings: _Strings, names: Sequence[str]) -> bytes:
    block = b""
    for index, name in enumerate(names):
        following = 0 if index == len(names) - 1 else 28
        block += struct.pack("<HHHHIII", 1, 0, index + 1, 1, 0, 20, following)
        block += struct.pack("<II", strings.add(name), 0)
    return block
