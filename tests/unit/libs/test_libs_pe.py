"""Windows DLLs: what is read from them, and what is said of a build on a described Windows."""

from __future__ import annotations

import random
import shutil
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.pe import pe_bytes, write_pe

from llamalite.errors import LibraryIncompatible
from llamalite.libs.files.inspect import LibraryFiles, check_loadable, scan_folder
from llamalite.libs.files.machine import Machine
from llamalite.libs.files.pe import read_pe
from llamalite.libs.platforms import Platform

RUNTIME = ("KERNEL32.dll", "MSVCP140.dll", "VCRUNTIME140.dll", "api-ms-win-crt-heap-l1-1-0.dll")


def build(folder: Path, arch: str = "x64") -> LibraryFiles:
    folder.mkdir(exist_ok=True)
    for name, needed in {
        "ggml-base.dll": ("libomp.dll",),
        "libomp.dll": (),
        "ggml.dll": ("ggml-base.dll",),
        "llama.dll": ("ggml.dll", "ggml-base.dll", "VCRUNTIME140_1.dll"),
        "ggml-cpu-x64.dll": ("ggml-base.dll",),
    }.items():
        write_pe(folder / name, arch=arch, imports=(*needed, *RUNTIME))
    return scan_folder(folder)


def windows(folder: Path, *libraries: str, arch: str = "x64") -> Machine:
    """Describe a Windows whose System32 holds these DLLs beside its own."""
    system = folder / "System32"
    system.mkdir(exist_ok=True)
    for name in libraries:
        (system / name).touch()
    return Machine(Platform.parse(f"windows-{arch}"), folders=(system,))


VISUAL_CPP = ("msvcp140.dll", "vcruntime140.dll", "vcruntime140_1.dll")


def test_the_reader_returns_what_was_written(tmp_path: Path) -> None:
    for by_address in (False, True):
        path = write_pe(
            tmp_path / "a.dll",
            imports=("KERNEL32.dll", "b.dll"),
            delay_imports=("nvcuda.dll",),
            delay_by_address=by_address,
        )
        library = read_pe(path)
        assert library.machine == "x64"
        assert library.imports == ("KERNEL32.dll", "b.dll")
        assert library.delay_imports == ("nvcuda.dll",)
    assert read_pe(write_pe(path, arch="arm64")).imports == ()
    assert read_pe(path).machine == "arm64"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"magic": 0x10B}, "not a 64-bit one"),
        ({"characteristics": 0x22}, "a program and no DLL"),
    ],
)
def test_what_is_no_dll_is_refused(tmp_path: Path, fields: dict[str, int], said: str) -> None:
    with pytest.raises(LibraryIncompatible, match=said):
        read_pe(write_pe(tmp_path / "a.dll", **fields))


def test_a_dll_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = pe_bytes(imports=("a.dll", "b.dll"), delay_imports=("c.dll",))
    path = tmp_path / "a.dll"
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(LibraryIncompatible) as caught:
            read_pe(path)
        assert "\n" not in str(caught.value)


def test_malformed_dlls_raise_library_incompatible_alone(tmp_path: Path) -> None:
    whole = pe_bytes(imports=("a.dll", "b.dll"), delay_imports=("c.dll",))
    path = tmp_path / "a.dll"
    interesting = [*range(0x3C, 0x120), *range(0x200, len(whole))]
    refused = 0
    chance = random.Random(7)
    for _ in range(2000):
        broken = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            broken[chance.choice(interesting)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        path.write_bytes(broken)
        try:
            read_pe(path)
        except LibraryIncompatible:
            refused += 1
    assert 100 < refused < 2000


@settings(max_examples=200, deadline=None)
@given(tail=st.binary(max_size=400))
def test_any_bytes_behind_the_magic(tail: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.dll"
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 64) + b"PE\0\0"
    path.write_bytes(head + tail)
    with pytest.raises(LibraryIncompatible):
        read_pe(path)


def test_a_table_without_end_is_refused(tmp_path: Path) -> None:
    whole = pe_bytes(imports=("a.dll",))
    section_at = whole.index(b".rdata")
    head, section = bytearray(whole[:0x200]), whole[0x200:]
    (name,) = struct.unpack_from("<I", section, 12)
    entry = struct.pack("<5I", 1, 0, 0, name + 20 * 2000, 1)
    endless = entry * 2000 + section
    struct.pack_into("<I", head, section_at + 16, len(endless))
    path = tmp_path / "a.dll"
    path.write_bytes(bytes(head) + endless)
    with pytest.raises(LibraryIncompatible, match="imports too many DLLs"):
        read_pe(path)


@pytest.mark.parametrize("arch", ["x64", "arm64"])
def test_a_good_build_passes_on_its_own_kind_of_machine(tmp_path: Path, arch: str) -> None:
    files = build(tmp_path / "build", arch)
    assert check_loadable(files, windows(tmp_path, *VISUAL_CPP, arch=arch)) == []
    other = "arm64" if arch == "x64" else "x64"
    with pytest.raises(LibraryIncompatible, match=f"windows-{arch} and this is windows-{other}"):
        check_loadable(files, windows(tmp_path, *VISUAL_CPP, arch=other))
    with pytest.raises(LibraryIncompatible, match=f"windows-{arch} and this is linux-x64"):
        check_loadable(files, Machine(Platform.parse("linux-x64")))


@pytest.mark.parametrize("missing", VISUAL_CPP)
@pytest.mark.parametrize("arch", ["x64", "arm64"])
def test_the_visual_cpp_runtime_is_named_with_its_link(
    tmp_path: Path, missing: str, arch: str
) -> None:
    files = build(tmp_path / "build", arch)
    there = [name for name in VISUAL_CPP if name != missing]
    with pytest.raises(LibraryIncompatible) as caught:
        check_loadable(files, windows(tmp_path, *there, arch=arch))
    assert f"needs {missing}" in str(caught.value).lower()
    assert f"https://aka.ms/vc14/vc_redist.{arch}.exe" in str(caught.value)
    # Beside the libraries is a place Windows looks in too.
    write_pe(tmp_path / "build" / missing, arch=arch)
    assert check_loadable(files, windows(tmp_path, *there, arch=arch)) == []


def test_siblings_are_named(tmp_path: Path) -> None:
    files = build(tmp_path / "build")
    machine = windows(tmp_path, *VISUAL_CPP)
    (tmp_path / "build" / "libomp.dll").unlink()
    with pytest.raises(LibraryIncompatible, match=r"libomp\.dll.*archive the build came in"):
        check_loadable(files, machine)
    write_pe(tmp_path / "build" / "libomp.dll", arch="arm64")
    with pytest.raises(LibraryIncompatible, match=r"libomp\.dll is built for windows-arm64"):
        check_loadable(files, machine)
    (tmp_path / "build" / "libomp.dll").write_bytes(b"")
    with pytest.raises(LibraryIncompatible, match=r"libomp\.dll is not a shared library \(it is e"):
        check_loadable(files, machine)
    write_pe(tmp_path / "build" / "libomp.dll")
    write_pe(tmp_path / "build" / "llama.dll", imports=("ggml.v0.4.0.dll",))
    with pytest.raises(LibraryIncompatible, match=r"misses its sibling ggml\.v0\.4\.0\.dll"):
        check_loadable(files, machine)


@pytest.mark.parametrize(
    ("backend", "needs", "said"),
    [
        ("cuda", "nvcuda.dll", "install NVIDIA's driver"),
        ("cuda", "cudart64_12.dll", "CUDA 12 runtime (`llamalite lib install --backend cuda`"),
        ("cuda", "cublas64_13.dll", "CUDA 13 runtime"),
        ("cuda", "cublasLt64_110.dll", "CUDA 11 runtime"),
        ("vulkan", "vulkan-1.dll", "graphics driver with Vulkan"),
        ("hip", "amdhip64_7.dll", "AMD's ROCm"),
        ("sycl", "sycl8.dll", "Intel's oneAPI"),
        ("opencl", "OpenCL.dll", "graphics driver with OpenCL"),
        ("openvino", "openvino.dll", "Intel's OpenVINO"),
        ("odd", "unheard-of.dll", "install it, or run `llamalite lib install`"),
    ],
)
def test_a_backend_whose_driver_is_missing_is_a_note(
    tmp_path: Path, backend: str, needs: str, said: str
) -> None:
    build(tmp_path / "build")
    write_pe(tmp_path / "build" / f"ggml-{backend}.dll", imports=("ggml-base.dll", needs))
    files = scan_folder(tmp_path / "build")
    [note] = check_loadable(files, windows(tmp_path, *VISUAL_CPP))
    assert f"ggml-{backend}.dll needs {needs}, which this machine doesn't have: " in note
    assert said in note
    assert check_loadable(files, windows(tmp_path, *VISUAL_CPP, needs)) == []


def test_a_delayed_import_is_missed_later(tmp_path: Path) -> None:
    build(tmp_path / "build")
    write_pe(tmp_path / "build" / "ggml-cuda.dll", delay_imports=("nvcuda.dll", "KERNEL32.dll"))
    [note] = check_loadable(scan_folder(tmp_path / "build"), windows(tmp_path, *VISUAL_CPP))
    assert "needs nvcuda.dll" in note
    assert "at the first use" in note


def test_what_the_interpreter_brings_counts_but_path_only_for_backends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python, system, toolkit = (tmp_path / name for name in ("python", "Windows", "toolkit"))
    for folder in (python, system / "System32", toolkit):
        folder.mkdir(parents=True)
    (python / "vcruntime140.dll").touch()
    (system / "System32" / "kernel32.dll").touch()
    (toolkit / "cudart64_12.dll").touch()
    monkeypatch.setattr("sys._base_executable", str(python / "python.exe"))
    monkeypatch.setenv("SYSTEMROOT", str(system))
    monkeypatch.setenv("PATH", str(toolkit))
    real = Machine(Platform.parse("windows-x64"))
    found = {
        name: real.has_dll(name)
        for name in ("VCRUNTIME140.dll", "KERNEL32.dll", "cudart64_12.dll", "dxgi.dll")
    }
    assert found == {
        "VCRUNTIME140.dll": True,
        "KERNEL32.dll": True,
        "cudart64_12.dll": False,
        "dxgi.dll": False,
    }
    assert real.has_dll("cudart64_12.dll", on_path=True)
    assert real.has_dll("api-ms-win-crt-math-l1-1-0.dll")


def test_the_build_may_lie_under_a_name_that_is_no_ascii(tmp_path: Path) -> None:
    build(tmp_path / "build")
    shutil.move(tmp_path / "build", tmp_path / "Bücher 本")
    files = scan_folder(tmp_path / "Bücher 本")
    assert check_loadable(files, windows(tmp_path, *VISUAL_CPP)) == []
