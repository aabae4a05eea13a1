from __future__ import annotations

import os
import random
import socket
import sys
from pathlib import Path

import pytest
from support.elf import elf_bytes, write_elf
from support.libllama_files import write_build
from support.macho import macho_bytes, universal_bytes
from support.pe import pe_bytes

from llamalite.errors import LibraryIncompatible, LibraryNotFound
from llamalite.libs.files.elf import read_elf
from llamalite.libs.files.folder import read_json
from llamalite.libs.files.inspect import check_loadable, scan_folder
from llamalite.libs.files.machine import Machine, this_machine
from llamalite.libs.files.remedies import refusal_remedy
from llamalite.libs.platforms import (
    ALL_PLATFORMS,
    Platform,
    current_platform,
    local_suffix,
    parse_library_name,
)

LINUX = Platform("linux", "x64")


def machine(tmp_path: Path, glibc: tuple[int, ...] | None = (2, 36), *libraries: str) -> Machine:
    """A made-up Linux whose loader finds only the libraries named."""
    folder = tmp_path / "system"
    folder.mkdir(exist_ok=True)
    for name in libraries:
        write_elf(folder / name, soname=name, defines=("GLIBCXX_3.4", "GLIBCXX_3.4.30"))
    return Machine(LINUX, glibc, (folder,))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("libllama.so", ("llama", None, "", "so")),
        ("libllama.so.0", ("llama", None, "0", "so")),
        ("libggml-base.so.0.9.5", ("ggml-base", None, "0.9.5", "so")),
        ("libllama.b6673.so", ("llama", "b6673", "", "so")),
        ("libggml.b7698.so.0.9.5", ("ggml", "b7698", "0.9.5", "so")),
        ("libllama.vulkan.v0.5.0.so", ("llama", "v0.5.0", "", "so")),
        ("libggml.metal.v0.4.0.dylib", ("ggml", "v0.4.0", "", "dylib")),
        ("libllama.0.0.7300.dylib", ("llama", None, "0.0.7300", "dylib")),
        ("libggml-cpu-armv8.2_3.so", ("ggml-cpu-armv8.2_3", None, "", "so")),
        ("llama.v0.4.0.dll", ("llama", "v0.4.0", "", "dll")),
        ("ggml-base.dll", ("ggml-base", None, "", "dll")),
        ("libllama-common.so", None),
        ("libllama.so.txt", None),
        ("llama-server", None),
        ("libomp.dll", None),
    ],
)
def test_library_names_of_all_eras(name: str, expected: tuple[str, ...] | None) -> None:
    named = parse_library_name(name)
    found = named and (named.stem, named.tag, named.version, named.suffix)
    assert found == expected


@pytest.mark.parametrize("inner", ["", "bin", "lib", "build/bin", "llama-b1", "llama-b1/lib"])
def test_scan_finds_the_folder_that_holds_libllama(tmp_path: Path, inner: str) -> None:
    write_build(tmp_path / "top" / inner)
    files = scan_folder(tmp_path / "top")
    assert files.folder == tmp_path / "top" / inner
    assert [path.name for path in files.core] == ["libggml-base.so", "libggml.so", "libllama.so"]
    assert [path.name for path in files.backends] == ["libggml-cpu-x64.so"]


def test_scan_takes_the_libllama_file_for_its_folder(tmp_path: Path) -> None:
    write_build(tmp_path)
    assert scan_folder(tmp_path / "libllama.so") == scan_folder(tmp_path)
    with pytest.raises(LibraryNotFound, match=r"libggml\.so"):
        scan_folder(tmp_path / "libggml.so")


def test_scan_prefers_the_name_the_others_ask_for(tmp_path: Path) -> None:
    for stem in ("llama", "ggml", "ggml-base", "mtmd", "ggml-cpu"):
        for suffix in ("so", "so.0", "so.0.9.5"):
            write_elf(tmp_path / f"lib{stem}.{suffix}")
    files = scan_folder(tmp_path)
    names = [path.name for path in (*files.core, files.mtmd, *files.backends) if path]
    assert all(name.endswith(".so.0") for name in names)
    assert len(names) == 5


def test_scan_reads_the_release_from_names_and_records(tmp_path: Path) -> None:
    for name in ("libllama.v0.5.0.so", "libggml.v0.5.0.so", "libggml-base.so"):
        write_elf(tmp_path / name)
    assert scan_folder(tmp_path).release == "v0.5.0"
    (tmp_path / "_nlcBuildMetadata.json").write_text(
        '{"buildOptions": {"llamaCpp": {"release": "b7"}}}'
    )
    assert scan_folder(tmp_path).release == "b7"
    (tmp_path / "install.json").write_text('{"release": "b11146"}')
    assert scan_folder(tmp_path).release == "b11146"
    (tmp_path / "install.json").write_text("[" * 100_000)
    assert scan_folder(tmp_path).release == "b7"


def test_scan_refuses_two_builds_side_by_side(tmp_path: Path) -> None:
    for name in ("libllama.b1.so", "libllama.b2.so", "libggml.b1.so", "libggml-base.so"):
        write_elf(tmp_path / name)
    with pytest.raises(LibraryIncompatible, match=r"several builds.*libllama\.b1\.so"):
        scan_folder(tmp_path)
    assert scan_folder(tmp_path / "libllama.b1.so").ggml.name == "libggml.b1.so"
    with pytest.raises(LibraryIncompatible, match="misses its sibling libggml "):
        scan_folder(tmp_path / "libllama.b2.so")


def test_scan_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(LibraryNotFound, match="no libllama in it"):
        scan_folder(tmp_path)
    with pytest.raises(LibraryNotFound, match="there is no folder"):
        scan_folder(tmp_path / "absent")
    with pytest.raises(LibraryNotFound):
        scan_folder(tmp_path / ("x" * 5000))
    write_build(tmp_path)
    (tmp_path / "libggml-base.so").unlink()
    with pytest.raises(LibraryIncompatible, match="misses its sibling libggml-base "):
        scan_folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"hello, world\n", "it begins with 'hello, world'"),
        (b"", "it is empty"),
        (b"\x00\x01\x02\x03", "it begins with bytes 00 01 02 03"),
        (b"MZ" + b"\0" * 62, "it begins with bytes 4d 5a"),
    ],
)
def test_a_file_that_is_no_library_is_quoted(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "libllama.so").write_bytes(content)
    with pytest.raises(LibraryIncompatible) as caught:
        scan_folder(tmp_path)
    assert "is not a shared library" in str(caught.value)
    assert said in str(caught.value)
    write_build(tmp_path)
    (tmp_path / "libggml.so").write_bytes(content)
    with pytest.raises(LibraryIncompatible, match=r"libggml\.so is not a shared library"):
        check_loadable(scan_folder(tmp_path), Machine(LINUX))


def make_strange(path: Path, kind: str) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "dangling link":
        path.symlink_to("libllama.so.0")
    elif kind == "circle":
        path.symlink_to(path.name)
    elif kind == "link to a folder":
        path.symlink_to(".")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(str(path))
    elif kind == "device":
        path.symlink_to("/dev/null")


STRANGE = {
    "folder": "is a folder, and no library lies in it",
    "dangling link": r"is a link to libllama\.so\.0, which isn't there",
    "circle": "is a link that leads round in a circle",
    "link to a folder": r"is a link to \S+, which is no regular file",
    "pipe": "is no regular file but a pipe",
    "socket": "is no regular file but a socket",
    "device": "is a link to /dev/null, which is no regular file",
}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_named_libllama_and_is_no_file(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    Path("build").mkdir()
    make_strange(Path("build/libllama.so"), kind)
    with pytest.raises(LibraryNotFound, match=f"^build/libllama.so {STRANGE[kind]}"):
        scan_folder(Path("build"))
    if kind not in ("folder", "link to a folder"):
        with pytest.raises(LibraryNotFound, match=f"^build/libllama.so {STRANGE[kind]}"):
            scan_folder(Path("build/libllama.so"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_in_a_siblings_place_and_is_no_file(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sibling = write_build(Path("build")) / "libggml.so"
    sibling.unlink()
    make_strange(sibling, kind)
    said = rf"misses its sibling libggml .*\({sibling} {STRANGE[kind]}"
    with pytest.raises(LibraryIncompatible, match=said):
        scan_folder(Path("build"))
    with pytest.raises(LibraryIncompatible, match=r"^build/libggml\.so can't be read: "):
        read_elf(sibling)


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    folder = write_build(tmp_path / "build")
    (folder / "libggml.so").unlink()
    # Even root can't read what lies at address 0.
    (folder / "libggml.so").symlink_to("/proc/self/mem")
    with pytest.raises(LibraryIncompatible, match=r"libggml\.so can't be read: Input/output error"):
        check_loadable(scan_folder(folder), machine(tmp_path))
    if os.geteuid() == 0:
        return
    for closed in (folder / "libggml-base.so", folder):
        closed.chmod(0)
        with pytest.raises((LibraryIncompatible, LibraryNotFound), match="Permission denied"):
            check_loadable(scan_folder(folder), machine(tmp_path))
        closed.chmod(0o755)


def test_a_library_cut_off_is_refused(tmp_path: Path) -> None:
    folder = write_build(tmp_path / "build")
    whole = (folder / "libggml.so").read_bytes()
    for n_bytes in (4, 64, len(whole) - 1):
        (folder / "libggml.so").write_bytes(whole[:n_bytes])
        with pytest.raises(LibraryIncompatible, match=r"libggml\.so is (a damaged|not a shared)"):
            check_loadable(scan_folder(folder), machine(tmp_path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders here")
@pytest.mark.timeout(20)
def test_a_record_that_is_a_pipe_does_not_hang(tmp_path: Path) -> None:
    write_build(tmp_path)
    os.mkfifo(tmp_path / "install.json")
    assert scan_folder(tmp_path).release is None
    (tmp_path / "large.json").write_text('{"a": "' + "x" * (1 << 20) + '"}')
    assert read_json(tmp_path / "large.json") == {}


def test_a_good_build_passes_without_notes(tmp_path: Path) -> None:
    files = scan_folder(write_build(tmp_path / "build"))
    assert check_loadable(files, machine(tmp_path)) == []


def test_another_architecture_is_named(tmp_path: Path) -> None:
    files = scan_folder(write_build(tmp_path / "build", arch="arm64"))
    with pytest.raises(LibraryIncompatible, match="built for linux-arm64 and this is linux-x64"):
        check_loadable(files, machine(tmp_path))


@pytest.mark.parametrize(
    ("content", "fits"),
    [
        (pe_bytes(), "windows-x64"),
        (pe_bytes(arch="arm64"), "windows-arm64"),
        (macho_bytes(), "macos-arm64"),
        (universal_bytes(macho_bytes(arch="x64"), macho_bytes()), "macos-x64"),
        (universal_bytes(macho_bytes(arch="x64"), macho_bytes()), "macos-arm64"),
    ],
    ids=["pe-x64", "pe-arm64", "macho", "universal-x64", "universal-arm64"],
)
def test_libraries_of_other_systems_pass_there_and_are_named_elsewhere(
    tmp_path: Path, content: bytes, fits: str
) -> None:
    suffix = "dll" if fits.startswith("windows") else "dylib"
    for stem in ("llama", "ggml", "ggml-base"):
        (tmp_path / f"{stem}.{suffix}").write_bytes(content)
    files = scan_folder(tmp_path)
    assert check_loadable(files, Machine(Platform.parse(fits), folders=())) == []
    with pytest.raises(LibraryIncompatible, match=f"built for {fits.split('-')[0]}.*linux-x64"):
        check_loadable(files, Machine(LINUX))
    other = Platform.parse("windows-x64" if fits != "windows-x64" else "windows-arm64")
    with pytest.raises(LibraryIncompatible, match=f"this is {other}"):
        check_loadable(files, Machine(other))


def test_a_newer_glibc_is_named_with_both_versions(tmp_path: Path) -> None:
    folder = write_build(tmp_path / "build")
    write_elf(
        folder / "libggml.so",
        needed=("libggml-base.so", "libc.so.6"),
        versions={"libc.so.6": ("GLIBC_2.4", "GLIBC_2.38", "GLIBC_2.17", "GLIBC_PRIVATE")},
    )
    with pytest.raises(LibraryIncompatible, match=r"libggml\.so needs glibc 2\.38 .*has 2\.36"):
        check_loadable(scan_folder(folder), machine(tmp_path))
    with pytest.raises(LibraryIncompatible, match="another one"):
        check_loadable(scan_folder(folder), machine(tmp_path, None))
    with pytest.raises(LibraryIncompatible, match=r"needs libc\.so\.6, which"):
        check_loadable(scan_folder(folder), machine(tmp_path, (2, 40)))


def test_an_older_libstdcxx_is_named_with_both_versions(tmp_path: Path) -> None:
    folder = write_build(tmp_path / "build")
    needs = {"libstdc++.so.6": ("GLIBCXX_3.4", "GLIBCXX_3.4.32")}
    write_elf(folder / "libggml-base.so", needed=("libstdc++.so.6",), versions=needs)
    with pytest.raises(LibraryIncompatible) as caught:
        check_loadable(scan_folder(folder), machine(tmp_path, (2, 36), "libstdc++.so.6"))
    assert "GLIBCXX_3.4.32" in str(caught.value)
    assert "ends at GLIBCXX_3.4.30" in str(caught.value)


def test_a_library_this_machine_lacks_is_named_with_its_package(tmp_path: Path) -> None:
    folder = write_build(tmp_path / "build")
    write_elf(folder / "libggml-base.so", needed=("libgomp.so.1",))
    with pytest.raises(LibraryIncompatible, match=r"libgomp\.so\.1.*libgomp1"):
        check_loadable(scan_folder(folder), machine(tmp_path))
    assert check_loadable(scan_folder(folder), machine(tmp_path, (2, 36), "libgomp.so.1")) == []


def test_a_sibling_counts_under_its_soname(tmp_path: Path) -> None:
    folder = write_build(tmp_path / "build")
    write_elf(folder / "libggml.so", needed=("libggml-base.so.0",))
    with pytest.raises(LibraryIncompatible, match=r"misses its sibling libggml-base\.so\.0"):
        check_loadable(scan_folder(folder), machine(tmp_path))
    write_elf(folder / "libggml-base.so", soname="libggml-base.so.0")
    assert check_loadable(scan_folder(folder), machine(tmp_path)) == []


def test_needs_of_linked_backends_count(tmp_path: Path) -> None:
    folder = write_build(tmp_path / "build")
    write_elf(folder / "libggml.so", needed=("libggml-base.so", "libggml-cpu-x64.so"))
    write_elf(folder / "libggml-cpu-x64.so", needed=("libgomp.so.1",))
    with pytest.raises(LibraryIncompatible, match=r"libggml-cpu-x64\.so needs libgomp"):
        check_loadable(scan_folder(folder), machine(tmp_path))


def test_a_backend_that_cannot_load_is_a_note_unless_it_is_the_last_cpu(tmp_path: Path) -> None:
    folder = write_build(tmp_path / "build")
    write_elf(folder / "libggml-cuda.so", needed=("libcudart.so.12",))
    write_elf(folder / "libmtmd.so", needed=("libpng.so",))
    notes = check_loadable(scan_folder(folder), machine(tmp_path))
    assert len(notes) == 2
    assert "libcudart.so.12" in notes[0]
    assert "libpng.so" in notes[1]
    write_elf(folder / "libggml-cpu-x64.so", needed=("libgomp.so.1",))
    with pytest.raises(LibraryIncompatible, match="libgomp"):
        check_loadable(scan_folder(folder), machine(tmp_path))
    write_elf(folder / "libggml-cpu-sse42.so")
    assert len(check_loadable(scan_folder(folder), machine(tmp_path))) == 3


def test_libraries_that_need_each_other_end(tmp_path: Path) -> None:
    folder = write_build(tmp_path / "build")
    write_elf(folder / "libggml-base.so", needed=("libggml.so",))
    assert check_loadable(scan_folder(folder), machine(tmp_path)) == []


def test_this_machine_offers_its_own_c_libraries() -> None:
    here = this_machine()
    if here.platform.os != "linux" or here.glibc is None:
        pytest.skip("this system's C library isn't glibc")
    libc = here.find("libc.so.6")
    assert libc is not None
    assert f"GLIBC_{here.glibc[0]}.{here.glibc[1]}" in libc.versions_defined
    assert here.find("libnothing-of-that-name.so.7") is None


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ("libcudart.so.12", "CUDA 12 runtime (`llamalite lib install --backend cuda` fetches it"),
        ("libcublasLt.so.13", "CUDA 13 runtime"),
        ("libcuda.so.1", "install NVIDIA's driver"),
        ("libvulkan.so.1", "libvulkan1) and a graphics driver"),
        ("libamdhip64.so.7", "AMD's ROCm"),
        ("librocblas.so.5", "AMD's ROCm"),
        ("libsycl.so.8", "Intel's oneAPI"),
        ("libmkl_sycl_blas.so.5", "Intel's oneAPI"),
        ("libopenvino.so.2640", "Intel's OpenVINO"),
        ("libunheard.so.1", "install it, or run `llamalite lib install`"),
    ],
)
def test_a_backend_whose_driver_is_missing_is_a_note(tmp_path: Path, needs: str, said: str) -> None:
    folder = write_build(tmp_path / "build")
    write_elf(folder / "libggml-gpu.so", needed=("libggml-base.so", needs))
    [note] = check_loadable(scan_folder(folder), machine(tmp_path))
    assert f"libggml-gpu.so needs {needs}, which this machine doesn't have: " in note
    assert said in note
    assert "\n" not in note
    assert check_loadable(scan_folder(folder), machine(tmp_path, (2, 36), needs)) == []


def test_a_system_with_musl_gets_one_line(tmp_path: Path) -> None:
    folder = write_build(tmp_path / "build")
    needs = {"libc.so.6": ("GLIBC_2.34",)}
    write_elf(folder / "libggml-base.so", needed=("libc.so.6",), versions=needs)
    with pytest.raises(LibraryIncompatible) as caught:
        check_loadable(scan_folder(folder), machine(tmp_path, None))
    assert "needs glibc 2.34 and this system's C library is another one (musl?)" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)
    # And the other way round: a build for musl where there is glibc.
    write_elf(folder / "libggml-base.so", needed=("libc.musl-x86_64.so.1",))
    with pytest.raises(LibraryIncompatible, match="built for a system with musl"):
        check_loadable(scan_folder(folder), machine(tmp_path))


@pytest.mark.parametrize(
    ("system", "machine_name", "expected"),
    [
        ("linux", "x86_64", "linux-x64"),
        ("linux", "aarch64", "linux-arm64"),
        ("darwin", "arm64", "macos-arm64"),
        ("darwin", "x86_64", "macos-x64"),
        ("win32", "win-amd64", "windows-x64"),
        ("win32", "win-arm64", "windows-arm64"),
        ("win32", "mingw_x86_64_ucrt", "windows-x64"),
    ],
)
def test_the_platform_of_this_process(
    monkeypatch: pytest.MonkeyPatch, system: str, machine_name: str, expected: str
) -> None:
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine_name)
    monkeypatch.setattr("sysconfig.get_platform", lambda: machine_name)
    assert str(current_platform()) == expected
    assert current_platform() in ALL_PLATFORMS
    assert local_suffix() == {"linux": "so", "darwin": "dylib", "win32": "dll"}[system]


@pytest.mark.parametrize(
    ("system", "machine_name", "said"),
    [
        ("android", "aarch64", "Android.*proot-distro"),
        ("freebsd14", "amd64", "freebsd14 on amd64"),
        ("linux", "riscv64", "linux on riscv64"),
        ("win32", "win32", "win32 on win32"),
        ("cygwin", "x86_64", "cygwin on x86_64"),
    ],
)
def test_platforms_that_nothing_is_built_for(
    monkeypatch: pytest.MonkeyPatch, system: str, machine_name: str, said: str
) -> None:
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine_name)
    monkeypatch.setattr("sysconfig.get_platform", lambda: machine_name)
    with pytest.raises(LibraryIncompatible, match=said):
        current_platform()


def test_androids_older_pythons_are_told_apart_from_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.getandroidapilevel", lambda: 24, raising=False)
    with pytest.raises(LibraryIncompatible, match="Android"):
        current_platform()


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("code signature in <X> not valid for use in process", "xattr -dr com.apple.quarantine /f"),
        ("library load disallowed by system policy", "xattr -dr com.apple.quarantine /f"),
        ("libllama.so: failed to map segment from shared object", "mounted noexec: move /f"),
        ("[WinError 4551] An Application Control policy has blocked this file", "Smart App"),
        ("undefined symbol: ggml_x", "fetch a build for this machine"),
    ],
)
def test_what_a_loader_says_leads_to_what_can_be_done(reason: str, said: str) -> None:
    assert said in refusal_remedy(reason, Path("/f"))


def test_elf_reader_returns_what_was_written(tmp_path: Path) -> None:
    path = write_elf(
        tmp_path / "a.so",
        soname="liba.so.1",
        needed=("libb.so", "libc.so.6"),
        versions={"libc.so.6": ("GLIBC_2.2", "GLIBC_2.3"), "libb.so": ("B_1",)},
        defines=("A_1", "A_2"),
        runpath="$ORIGIN:/opt/x:",
    )
    library = read_elf(path)
    assert (library.machine, library.soname) == ("x64", "liba.so.1")
    assert library.needed == ("libb.so", "libc.so.6")
    assert library.versions_needed == (
        ("libc.so.6", "GLIBC_2.2"),
        ("libc.so.6", "GLIBC_2.3"),
        ("libb.so", "B_1"),
    )
    assert library.versions_defined == {"A_1", "A_2"}
    assert library.runpath == (tmp_path, Path("/opt/x"))


def test_malformed_elf_raises_library_incompatible_alone(tmp_path: Path) -> None:
    whole = elf_bytes(
        soname="a",
        needed=("b", "c"),
        versions={"b": ("B_1", "B_2"), "c": ("C_1",)},
        defines=("A_1", "A_2"),
        runpath="$ORIGIN",
    )
    path = tmp_path / "a.so"
    refused = 0
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(LibraryIncompatible):
            read_elf(path)
    chance = random.Random(7)
    for _ in range(1000):
        broken = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            broken[chance.randrange(4, len(broken))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        path.write_bytes(broken)
        try:
            read_elf(path)
        except LibraryIncompatible:
            refused += 1
    assert refused > 100
