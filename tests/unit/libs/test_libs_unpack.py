from __future__ import annotations

import gzip
import io
import stat
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.libllama_files import add_file, add_link, npm_archive, official_archive

from llamalite.errors import DownloadError
from llamalite.libs.folder import scan_folder
from llamalite.libs.unpack import unpack_libraries


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
