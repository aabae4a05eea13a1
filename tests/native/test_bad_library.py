"""What can't be loaded is refused in one line, through the real command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llamalite import config
from llamalite.ffi.library import Library
from llamalite.libs.files.machine import glibc_version
from llamalite.libs.install import fetch_npm
from llamalite.libs.sources.pip import download_wheel

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ELF libraries are for Linux")


def refusal(folder: Path, model: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "llamalite", "run", str(model), "hello"],
        env={**os.environ, "LLAMALITE_LIB": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_missing_sibling(library: Library, smollm2: Path, tmp_path: Path) -> None:
    for path in library.files.folder.glob("*.so*"):
        if not path.name.startswith("libggml-base"):
            shutil.copy(path, tmp_path)
    assert "misses its sibling libggml-base" in refusal(tmp_path, smollm2)


def test_a_text_file(smollm2: Path, tmp_path: Path) -> None:
    (tmp_path / "libllama.so").write_text("hello, I am no library")
    assert "not a shared library (it begins with 'hello" in refusal(tmp_path, smollm2)


def test_a_folder_that_is_not_there(smollm2: Path, tmp_path: Path) -> None:
    assert "no folder" in refusal(tmp_path / "absent", smollm2)


@pytest.mark.matrix
def test_another_architecture(smollm2: Path) -> None:
    folder = config.home() / "test-builds" / "linux-arm64-3.22.1"
    if not folder.exists():
        fetch_npm("@node-llama-cpp/linux-arm64", "3.22.1", folder)
    assert "built for linux-arm64" in refusal(folder, smollm2)


@pytest.mark.matrix
def test_a_newer_glibc(smollm2: Path, tmp_path: Path) -> None:
    here = glibc_version()
    if here is None or here >= (2, 38):
        pytest.skip(f"glibc here is {here}: the library would load")
    wheel = download_wheel("llama-cpp-py-sync==0.11739", tmp_path)
    folder = wheel
    if wheel.is_file():
        folder = tmp_path / "wheel"
        shutil.unpack_archive(wheel, folder, "zip")
    line = refusal(folder / "llama_cpp_py_sync", smollm2)
    assert "needs glibc 2.38" in line
    assert "this machine has 2." in line
