from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from support.elf import write_elf
from support.libllama_files import write_build

from llamalite.errors import LibraryError, LibraryIncompatible, LibraryNotFound
from llamalite.libs.find import (
    find_library,
    list_installed,
    marked_folder,
    remove_install,
    remove_installs,
    unuse,
    use_install,
)
from llamalite.libs.platforms import current_platform

HERE = current_platform()

pytestmark = pytest.mark.skipif(
    HERE.os != "linux", reason="the made-up builds are ELF files, which only Linux loads"
)


def put(home: Path, release: str, backend: str = "cpu", arch: str = HERE.arch) -> Path:
    """Make an install as a source would."""
    platform = f"linux-{arch}"
    folder = write_build(home / "libs" / f"{release}-{backend}-{platform}", arch)
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    record = {"format": 1, "release": release, "backend": backend, "platform": platform}
    record |= {"installed_at": "2026-01-01T00:00:00Z", "files": sizes, "source": "npm"}
    (folder / "install.json").write_text(json.dumps(record))
    return folder


def chosen() -> Path | None:
    files = find_library()
    return files.folder if files else None


@pytest.fixture
def pinned(own_home: Path) -> Path:
    return put(own_home, "b11146")


@pytest.fixture
def older(own_home: Path) -> Path:
    return put(own_home, "b5640")


@pytest.mark.parametrize("name", ["b5640-cpu-linux-{arch}", "b5640", "b56"])
def test_an_install_is_used_by_its_name_or_part_of_it(pinned: Path, older: Path, name: str) -> None:
    assert chosen() == pinned
    assert use_install(name.format(arch=HERE.arch)).folder == older
    assert chosen() == older
    assert [item.active for item in list_installed()] == [True, False]
    assert unuse()
    assert not unuse()
    assert chosen() == pinned


def test_a_version_stands_for_its_build(pinned: Path, older: Path) -> None:
    use_install("b5640")
    assert use_install("v0.5.0").folder == pinned


def test_a_folder_elsewhere_is_used_by_its_path(
    pinned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = write_build(tmp_path / "own" / "lib", HERE.arch)
    monkeypatch.chdir(tmp_path)
    assert use_install("./own").folder == own
    monkeypatch.chdir("/")
    assert chosen() == own
    assert marked_folder() == tmp_path / "own"
    assert [item.active for item in list_installed()] == [False]
    assert use_install(own / "libllama.so").folder == own
    assert chosen() == own
    assert use_install(pinned).folder == pinned
    assert (pinned.parent / "active").read_text() == f"{pinned.name}\n"


def test_a_marked_folder_that_vanishes_is_passed_over_with_a_warning(
    pinned: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = write_build(tmp_path / "own", HERE.arch)
    use_install(own)
    os.rename(own, tmp_path / "elsewhere")
    assert chosen() == pinned
    (warning,) = caplog.messages
    assert "marked active is passed over" in warning
    assert str(own) in warning


def test_a_marked_folder_that_no_longer_loads_is_passed_over_with_a_warning(
    pinned: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = write_build(tmp_path / "own", HERE.arch)
    use_install(own)
    write_elf(own / "libllama.so", arch=HERE.arch, needed=("libnothing.so.7",))
    assert chosen() == pinned
    (warning,) = caplog.messages
    assert "libnothing.so.7" in warning
    assert len(warning.splitlines()) == 1


def test_a_marked_install_that_is_damaged_is_passed_over_with_a_warning(
    pinned: Path, older: Path, caplog: pytest.LogCaptureFixture
) -> None:
    use_install("b5640")
    (older / "libggml-cpu-x64.so").write_bytes(b"")
    assert chosen() == pinned
    (warning,) = caplog.messages
    assert "gone or damaged" in warning


def test_what_cannot_be_loaded_is_not_marked(pinned: Path, own_home: Path, tmp_path: Path) -> None:
    other = "arm64" if HERE.arch == "x64" else "x64"
    put(own_home, "b7777", arch=other)
    with pytest.raises(LibraryIncompatible, match=f"built for linux-{other}"):
        use_install("b7777")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LibraryNotFound, match="no libllama in it"):
        use_install(tmp_path / "empty")
    with pytest.raises(LibraryNotFound, match="there is no folder"):
        use_install("./absent")
    assert marked_folder() is None
    assert chosen() == pinned


def test_names_that_fit_none_or_several(pinned: Path, older: Path, own_home: Path) -> None:
    put(own_home, "b11146", "vulkan")
    for refused in (use_install, remove_install):
        with pytest.raises(LibraryNotFound, match=r"could be any of b11146-cpu-.*b11146-vulkan-"):
            refused("b11146")
        with pytest.raises(LibraryNotFound, match=r"no install b9: there are b11146-cpu-.*b5640"):
            refused("b9")
        with pytest.raises(LibraryNotFound, match="no install"):
            refused("")
    assert len(list_installed()) == 3


@pytest.mark.parametrize("name", ["..", ".", "../home", "libs", ".llamalite-tmp-x", "/"])
def test_nothing_but_installs_is_removed(pinned: Path, own_home: Path, name: str) -> None:
    (own_home / "libs" / ".llamalite-tmp-x").mkdir()
    with pytest.raises(LibraryNotFound):
        remove_install(name)
    assert chosen() == pinned


def test_removing_the_active_install_clears_the_mark(pinned: Path, older: Path) -> None:
    use_install("b5640")
    assert remove_install("b5640") == older
    assert not older.exists()
    assert marked_folder() is None
    assert chosen() == pinned
    assert remove_install(pinned.name) == pinned
    assert chosen() is None
    assert list(pinned.parent.iterdir()) == []
    with pytest.raises(LibraryNotFound, match="nothing is installed"):
        remove_install("b5640")


def test_removing_another_keeps_the_mark(pinned: Path, older: Path) -> None:
    use_install("b5640")
    remove_install("b11146")
    assert marked_folder() == older


def test_a_damaged_install_can_be_removed(older: Path) -> None:
    (older / "install.json").unlink()
    assert list_installed() == []
    remove_install("b5640")
    assert not older.exists()


def test_a_choice_that_cannot_be_written_is_one_line(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = write_build(tmp_path / "own", HERE.arch)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLAMALITE_HOME", str(tmp_path / "file"))
    with pytest.raises(LibraryError, match="active can't be written"):
        use_install(own)
    assert find_library() is None


def test_a_mark_that_is_no_text_is_no_mark(pinned: Path) -> None:
    (pinned.parent / "active").write_bytes(b"\xff\xfe\x00")
    assert chosen() == pinned
    (pinned.parent / "active").write_text("\n")
    assert chosen() == pinned


def test_who_asks_is_told_what_is_passed_over_and_what_follows(
    pinned: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = write_build(tmp_path / "own\x1b[31m\nline", HERE.arch)
    use_install(own)
    shutil.rmtree(own)
    said: list[str] = []
    files = find_library(said.append)
    assert files is not None
    assert files.folder == pinned
    (line,) = said
    assert line.startswith("the libllama marked active is passed over: there is no folder ")
    assert line.endswith(f"; {pinned} is used")
    assert "own\\x1b[31m\\nline" in line
    assert line.isprintable()
    remove_install(pinned.name)
    said.clear()
    assert find_library(said.append) is None
    (line,) = said
    assert line.endswith("; no other is installed")
    assert caplog.messages == []


def test_an_install_that_is_gone_is_said_to_those_who_ask(pinned: Path, older: Path) -> None:
    use_install("b5640")
    shutil.rmtree(older)
    said: list[str] = []
    assert find_library(said.append) is not None
    (line,) = said
    assert "gone or damaged" in line
    assert line.endswith(f"; {pinned} is used")


@pytest.mark.parametrize("name", [" own ", "own\n", "a\nb"])
def test_any_name_of_a_folder_is_kept(tmp_path: Path, name: str) -> None:
    own = write_build(tmp_path / name, HERE.arch)
    use_install(own)
    assert marked_folder() == own
    assert chosen() == own


def test_a_name_that_is_no_utf8_is_kept(tmp_path: Path) -> None:
    own = write_build(tmp_path / os.fsdecode(b"own\xff"), HERE.arch)
    use_install(own)
    assert chosen() == own


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_mark_that_is_a_pipe_is_no_mark(pinned: Path) -> None:
    os.mkfifo(pinned.parent / "active")
    assert chosen() == pinned


def test_a_mark_that_cannot_be_put_in_place_leaves_nothing(pinned: Path, own_home: Path) -> None:
    (own_home / "libs" / "active").mkdir()
    with pytest.raises(LibraryError, match="active can't be written"):
        use_install(pinned)
    assert {path.name for path in (own_home / "libs").iterdir()} == {"active", pinned.name}


def test_of_several_names_all_must_be_right_before_one_goes(pinned: Path, older: Path) -> None:
    with pytest.raises(LibraryNotFound, match="no install nonsense"):
        remove_installs(["b5640", "nonsense"])
    assert older.exists()
    assert remove_installs(["b5640", "b5640", "b11146"]) == [older, pinned]
    assert list_installed() == []
