"""macOS libraries: what is read from them, and what is said of a build on a described macOS."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.macho import macho_bytes, universal_bytes, write_macho

from llamalite.errors import LibraryIncompatible
from llamalite.libs.files import machine as machine_module
from llamalite.libs.files.inspect import LibraryFiles, check_loadable, scan_folder
from llamalite.libs.files.machine import Machine, macos_version
from llamalite.libs.files.macho import MachFile, read_macho
from llamalite.libs.platforms import Platform

SYSTEM = ("/usr/lib/libSystem.B.dylib", "/System/Library/Frameworks/Metal.framework/Metal")
CORE = {
    "libggml-base.dylib": (),
    "libggml.dylib": ("@rpath/libggml-base.dylib",),
    "libllama.dylib": ("@rpath/libggml.dylib", "@rpath/libggml-base.dylib"),
    "libggml-cpu-apple_m1.so": ("@rpath/libggml-base.dylib",),
}
ARM = Machine(Platform.parse("macos-arm64"), folders=(), macos=(14, 0))


def build(folder: Path, **fields: object) -> LibraryFiles:
    folder.mkdir(exist_ok=True)
    for name, needed in CORE.items():
        values = {"rpaths": ("@loader_path",), "minimum": (14, 0, 0), **fields}
        if name.endswith(".so"):
            values["kind"] = 8
        else:
            values["install_name"] = f"@rpath/{name}"
        write_macho(folder / name, needed=(*needed, *SYSTEM), **values)
    return scan_folder(folder)


def read(path: Path, content: bytes) -> MachFile:
    path.write_bytes(content)
    return read_macho(path)


def test_the_reader_returns_what_was_written(tmp_path: Path) -> None:
    content = macho_bytes(
        install_name="@rpath/liba.dylib",
        needed=("@rpath/libb.dylib", "/usr/lib/libc++.1.dylib"),
        weak=("/usr/lib/libnew.dylib",),
        reexported=("@loader_path/libr.dylib",),
        rpaths=("@loader_path", "/opt/x"),
        minimum=(13, 3, 1),
    )
    [image] = read(tmp_path / "a", content).images
    assert image.machine == "arm64"
    assert image.install_name == "@rpath/liba.dylib"
    assert set(image.needed) == {
        "@rpath/libb.dylib",
        "/usr/lib/libc++.1.dylib",
        "@loader_path/libr.dylib",
    }
    assert image.optional == ("/usr/lib/libnew.dylib",)
    assert image.rpaths == ("@loader_path", "/opt/x")
    assert image.minimum == (13, 3, 1)


@pytest.mark.parametrize("wide", [False, True])
def test_each_part_of_a_universal_file_has_its_own_needs(tmp_path: Path, wide: bool) -> None:
    parts = [
        macho_bytes(arch="x64", needed=("/x",), minimum=(10, 15, 0), old_minimum=True),
        macho_bytes(arch="arm64", needed=("/arm",), minimum=(11, 0, 0)),
        macho_bytes(arch="arm64e"),
    ]
    library = read(tmp_path / "a", universal_bytes(*parts, wide=wide))
    assert [image.machine for image in library.images] == ["x64", "arm64", "arm64e"]
    assert [image.needed for image in library.images] == [("/x",), ("/arm",), ()]
    assert [image.minimum for image in library.images] == [(10, 15), (11, 0), None]
    assert library.image("arm64") == library.images[1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (macho_bytes(kind=2), "no shared library"),
        (b"\xce\xfa\xed\xfe" + macho_bytes()[4:], "not a 64-bit one"),
        (b"\xca\xfe\xba\xbe" + struct.pack(">I", 65), "claims to hold 65 images"),
        (universal_bytes(b"hello, I am no library at all, but long enough"), "magic"),
    ],
)
def test_what_is_no_library_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(LibraryIncompatible, match=said):
        read(tmp_path / "a", content)


WHOLE = macho_bytes(
    install_name="@rpath/a", needed=("b", "c"), weak=("d",), rpaths=("e",), minimum=(14, 0, 0)
)


@pytest.mark.parametrize("content", [WHOLE, universal_bytes(WHOLE, macho_bytes(arch="x64"))])
def test_a_library_cut_anywhere_is_refused(tmp_path: Path, content: bytes) -> None:
    for cut in range(len(content)):
        with pytest.raises(LibraryIncompatible) as caught:
            read(tmp_path / "a", content[:cut])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [WHOLE, universal_bytes(WHOLE, macho_bytes(arch="x64"))])
def test_malformed_libraries_raise_library_incompatible_alone(
    tmp_path: Path, content: bytes
) -> None:
    refused = 0
    chance = random.Random(7)
    for _ in range(2000):
        broken = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            broken[chance.randrange(4, len(broken))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        try:
            read(tmp_path / "a", bytes(broken))
        except LibraryIncompatible:
            refused += 1
    assert 100 < refused < 2000


@settings(max_examples=200, deadline=None)
@given(
    magic=st.sampled_from([b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf"]),
    tail=st.binary(max_size=400),
)
def test_any_bytes_behind_the_magic(
    magic: bytes, tail: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.dylib"
    try:
        images = read(path, magic + tail).images
    except LibraryIncompatible:
        return
    assert images


def test_a_good_build_passes_on_its_own_kind_of_machine(tmp_path: Path) -> None:
    files = build(tmp_path / "build")
    assert [path.name for path in files.backends] == ["libggml-cpu-apple_m1.so"]
    assert check_loadable(files, ARM) == []
    intel = Machine(Platform.parse("macos-x64"), folders=())
    with pytest.raises(LibraryIncompatible, match="macos-arm64 and this is macos-x64"):
        check_loadable(files, intel)
    both = universal_bytes(macho_bytes(arch="x64"), macho_bytes())
    for path in files.core:
        path.write_bytes(both)
    files.backends[0].write_bytes(both)
    assert check_loadable(files, intel) == []
    write_macho(files.backends[0], arch="arm64e")
    with pytest.raises(LibraryIncompatible, match="macos-arm64e and this is macos-arm64"):
        check_loadable(files, ARM)


def test_an_older_macos_is_told_both_versions(tmp_path: Path) -> None:
    files = build(tmp_path / "build")
    old = Machine(ARM.platform, folders=(), macos=(13, 6))
    with pytest.raises(LibraryIncompatible, match=r"needs macOS 14\.0 and this is 13\.6"):
        check_loadable(files, old)
    assert check_loadable(files, Machine(ARM.platform, folders=())) == []
    build(tmp_path / "build", minimum=(13, 6, 0))
    assert check_loadable(files, old) == []


def test_siblings_are_found_where_rpath_leads(tmp_path: Path) -> None:
    files = build(tmp_path / "build")
    write_macho(
        files.ggml,
        needed=("@rpath/libggml-base.0.dylib", "@loader_path/libextra.dylib"),
        rpaths=("@loader_path/.",),
    )
    with pytest.raises(LibraryIncompatible, match=r"misses its sibling libggml-base\.0\.dylib"):
        check_loadable(files, ARM)
    write_macho(files.ggml_base, install_name="@rpath/libggml-base.0.dylib")
    with pytest.raises(LibraryIncompatible, match=r"needs libextra\.dylib, which this machine"):
        check_loadable(files, ARM)
    (files.folder / "libextra.dylib").write_bytes(b"")
    with pytest.raises(LibraryIncompatible, match=r"libextra\.dylib is not a shared library"):
        check_loadable(files, ARM)
    write_macho(files.folder / "libextra.dylib", needed=("@rpath/libdeep.dylib",))
    with pytest.raises(LibraryIncompatible, match=r"libextra\.dylib needs libdeep\.dylib"):
        check_loadable(files, ARM)


def test_outside_libraries_count_where_dyld_looks(tmp_path: Path) -> None:
    files = build(tmp_path / "build")
    opt = tmp_path / "opt"
    write_macho(files.ggml_base, needed=(f"{opt}/libomp.dylib",), weak=("/nowhere/libw.dylib",))
    with pytest.raises(LibraryIncompatible, match=r"needs libomp\.dylib.*brew install libomp"):
        check_loadable(files, ARM)
    opt.mkdir()
    write_macho(opt / "libomp.dylib", arch="x64")
    with pytest.raises(LibraryIncompatible, match=r"needs libomp\.dylib"):
        check_loadable(files, ARM)
    write_macho(opt / "libomp.dylib")
    assert check_loadable(files, ARM) == []
    write_macho(files.ggml_base, needed=("@rpath/libomp.dylib",), rpaths=("/elsewhere", str(opt)))
    assert check_loadable(files, ARM) == []
    write_macho(files.ggml_base, needed=("/elsewhere/libomp.dylib",))
    fallback = Machine(ARM.platform, folders=(opt,))
    assert check_loadable(files, fallback) == []


def test_the_environment_is_searched_on_the_real_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = build(tmp_path / "build")
    write_macho(files.ggml_base, needed=("/elsewhere/libx.dylib",))
    write_macho(tmp_path / "libx.dylib")
    here = Machine(ARM.platform)
    with pytest.raises(LibraryIncompatible, match=r"needs libx\.dylib"):
        check_loadable(files, here)
    for variable in ("DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"):
        monkeypatch.setenv(variable, f"/nowhere:{tmp_path}")
        assert check_loadable(files, here) == []
        monkeypatch.delenv(variable)


@pytest.mark.parametrize(
    ("told", "version"),
    [("13.6", (13, 6)), ("14.4.1", (14, 4, 1)), ("26.0", (26, 0)), ("10.16", None), ("", None)],
)
def test_the_version_of_macos(
    monkeypatch: pytest.MonkeyPatch, told: str, version: tuple[int, ...] | None
) -> None:
    monkeypatch.setattr(machine_module.host, "mac_ver", lambda: (told, ("", "", ""), ""))
    assert macos_version() == version
