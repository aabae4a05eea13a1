"""Copies of a real libllama that die or hang in one function, as if built for another processor."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

from llamalite.libs.files.elf import elf_machine

DIE = {"x64": b"\x0f\x0b", "arm64": bytes(4)}  # ud2, udf
# mov edi, 7; mov eax, 231 (exit_group); syscall, and the same in AArch64
EXIT = {
    "x64": b"\xbf\x07\x00\x00\x00\xb8\xe7\x00\x00\x00\x0f\x05",
    "arm64": bytes.fromhex("e0008052c80b8052010000d4"),
}
HANG = {"x64": b"\xeb\xfe", "arm64": b"\x00\x00\x00\x14"}  # a jump to itself


def copy_libraries(source: Path, folder: Path, *, few: bool = False) -> Path:
    """Copy a folder's shared libraries, links as files.

    `few` leaves most of x86-64's CPU variants out, as each is tried where a library dies.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [path for path in source.iterdir() if ".so" in path.name]
    variants = {path for path in paths if path.name.startswith("libggml-cpu-")}
    kept = {path for path in variants if path.stem.endswith(("-x64", "-haswell"))}
    for path in paths:
        if not (few and kept and path in variants - kept):
            shutil.copyfile(path, folder / path.name)
    return folder


def plant(library: Path, symbol: str, code: dict[str, bytes] = DIE) -> None:
    """Overwrite the beginning of an exported function.

    Raises:
        LookupError: the library exports no such function.
    """
    content = bytearray(library.read_bytes())
    at = _file_offset(bytes(content), symbol.encode())
    instruction = code[elf_machine(bytes(content[:64]))]
    content[at : at + len(instruction)] = instruction
    library.unlink()
    library.write_bytes(content)


def _file_offset(content: bytes, symbol: bytes) -> int:
    (table,) = struct.unpack_from("<Q", content, 40)
    size, count = struct.unpack_from("<HH", content, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", content, table + i * size) for i in range(count)]
    symbols = next(section for section in sections if section[1] == 11)  # SHT_DYNSYM
    names = sections[symbols[6]][4]
    for at in range(symbols[4], symbols[4] + symbols[5], 24):
        name, _info, _other, home, address, _size = struct.unpack_from("<IBBHQQ", content, at)
        if home and content.startswith(symbol + b"\0", names + name):
            section = sections[home]
            return int(address - section[3] + section[4])
    raise LookupError(f"no exported {symbol.decode()}")
