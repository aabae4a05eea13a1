"""Made-up wheels of `llama-cpp-py-sync`, with a build of tiny ELF files in them."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from pathlib import Path

from support.libllama_files import write_build

from llamalite.libs.sources.pip import WheelPlatform
from llamalite.libs.sources.pypi import WheelPin, contents_digest

TARGET = WheelPlatform("manylinux2014_x86_64", "x86_64-manylinux2014")


def make_wheel(folder: Path, version: str = "0.11111", arch: str = "x64") -> WheelPin:
    """Write a wheel into a folder and return what pins it; it needs nothing of the system."""
    name = f"llama_cpp_py_sync-{version}"
    path = folder / f"{name}-1cpu-py3-none-{TARGET.pip}.whl"
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(path, "w") as wheel:
        libraries = write_build(Path(scratch), arch)
        contents = contents_digest(libraries)
        for library in sorted(libraries.iterdir()):
            wheel.write(library, f"llama_cpp_py_sync/{library.name}")
        wheel.writestr("llama_cpp_py_sync/__init__.py", "raise SystemExit\n")
        about = f"{name}.dist-info"
        wheel.writestr(
            f"{about}/METADATA",
            f"Metadata-Version: 2.1\nName: llama-cpp-py-sync\nVersion: {version}\n",
        )
        wheel.writestr(
            f"{about}/WHEEL",
            f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-{TARGET.pip}\n",
        )
        wheel.writestr(f"{about}/RECORD", "")
    content = path.read_bytes()
    return WheelPin(
        version,
        f"b{version.split('.')[1]}",
        "cpu",
        len(content),
        hashlib.sha256(content).hexdigest(),
        contents,
        TARGET,
    )
