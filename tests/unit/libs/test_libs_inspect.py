from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from support.elf import elf_bytes, write_elf
from support.libllama_files import write_build

from llamalite.errors import LibraryIncompatible, LibraryNotFound
from llamalite.libs.elf import read_elf
from llamalite.libs.inspect import check_loadable, scan_folder
from llamalite.libs.machine import Machine, this_machine
from llamalite.libs.platforms import Platform, parse_library_name

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


def test_a_good_build_passes_without_notes(tmp_path: Path) -> None:
    files = scan_folder(write_build(tmp_path / "build"))
    assert check_loadable(files, machine(tmp_path)) == []


def test_another_architecture_is_named(tmp_path: Path) -> None:
    files = scan_folder(write_build(tmp_path / "build", arch="arm64"))
    with pytest.raises(LibraryIncompatible, match="built for linux-arm64 and this is linux-x64"):
        check_loadable(files, machine(tmp_path))


def pe(machine_number: int) -> bytes:
    return (
        b"MZ".ljust(0x3C, b"\0")
        + struct.pack("<I", 64)
        + b"PE\0\0"
        + struct.pack("<H", machine_number)
    )


MACHO_ARM64 = b"\xcf\xfa\xed\xfe" + struct.pack("<I", 0x0100000C)
MACHO_UNIVERSAL = (
    b"\xca\xfe\xba\xbe"
    + struct.pack(">I", 2)
    + b"".join(struct.pack(">5I", kind, 0, 0, 0, 0) for kind in (0x01000007, 0x0100000C))
)


@pytest.mark.parametrize(
    ("content", "fits"),
    [
        (pe(0x8664), "windows-x64"),
        (pe(0xAA64), "windows-arm64"),
        (MACHO_ARM64, "macos-arm64"),
        (MACHO_UNIVERSAL, "macos-x64"),
        (MACHO_UNIVERSAL, "macos-arm64"),
    ],
)
def test_libraries_of_other_systems_pass_there_and_are_named_elsewhere(
    tmp_path: Path, content: bytes, fits: str
) -> None:
    suffix = "dll" if fits.startswith("windows") else "dylib"
    for stem in ("llama", "ggml", "ggml-base"):
        (tmp_path / f"{stem}.{suffix}").write_bytes(content)
    files = scan_folder(tmp_path)
    assert check_loadable(files, Machine(Platform.parse(fits))) == []
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
