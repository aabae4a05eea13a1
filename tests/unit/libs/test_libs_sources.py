"""Which sources are tried for what, and those that need no network: wheels and local files."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from support.elf import write_elf
from support.libllama_files import official_archive, release_table, write_build
from support.loopback_github import serving
from support.wheels import make_wheel

from llamalite.errors import (
    ChecksumMismatch,
    DownloadError,
    InvalidParameter,
    LibraryIncompatible,
    LibraryNotFound,
    Offline,
)
from llamalite.libs.find import find_library, list_installed
from llamalite.libs.install import ensure_library, install
from llamalite.libs.platforms import ALL_PLATFORMS, Platform, current_platform
from llamalite.libs.sources import index, pip, pypi
from llamalite.libs.sources.index import IndexState
from llamalite.libs.sources.local import release_in_name
from llamalite.libs.sources.npm import NpmFetch
from llamalite.libs.sources.pip import Installer, download_wheel
from llamalite.libs.sources.plan import plan
from llamalite.libs.sources.pypi import WHEELS, WheelFetch, WheelPin
from llamalite.libs.sources.releases import PINNED

HERE = current_platform()
LINUX = Platform("linux", "x64")

pytestmark = [
    pytest.mark.skipif(str(HERE) != "linux-x64", reason="the made-up builds are for Linux x64"),
    pytest.mark.usefixtures("no_wheels"),
]


def tried(release: str | None, platform: str = "linux-x64", backend: str = "cpu") -> list[str]:
    ways = plan(PINNED, release, Platform.parse(platform), backend)
    return [f"{way.source} {way.release}" for way in ways]


def test_each_source_has_its_own_pin() -> None:
    assert tried(None) == ["github b11146", "npm b11146", "pypi b11739"]
    assert tried(None, "macos-arm64", "metal") == ["github b11146", "npm b10809", "pypi b11739"]
    assert tried(None, "windows-x64") == ["github b11146", "npm b10809", "pypi b11739"]
    assert tried(None, "windows-arm64") == ["github b11146", "npm b10809"]
    assert tried(None, "linux-x64", "vulkan") == ["github b11146", "npm b11146"]


def test_a_build_named_is_taken_where_it_is() -> None:
    assert tried("b11146") == tried("v0.5.0") == ["github b11146", "npm b11146"]
    assert tried("v0.4.0", "macos-x64") == ["github b10809", "npm b10809"]
    assert tried("b11739") == ["github b11739", "pypi b11739"]
    assert tried("b9999") == ["github b9999"]
    assert tried("latest") == ["github None"]
    assert tried("npm:3.10.0") == ["npm None"]
    assert tried("npm:3.22.1") == ["npm b11146"]
    assert tried("pypi:0.11548") == ["pypi b11548"]


def test_the_order_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMALITE_LIB_SOURCES", " NPM, github,npm ")
    assert [way.source for way in plan(PINNED, None, LINUX, "cpu")] == ["npm", "github"]
    assert [way.source for way in plan(PINNED, None, LINUX, "cpu", ("pypi",))] == ["pypi"]
    monkeypatch.setenv("LLAMALITE_LIB_SOURCES", "npm,conda")
    with pytest.raises(InvalidParameter, match="'conda', though LLAMALITE_LIB_SOURCES names it"):
        plan(PINNED, None, LINUX, "cpu")
    monkeypatch.setenv("LLAMALITE_LIB_SOURCES", ",")
    assert len(plan(PINNED, None, LINUX, "cpu")) == 3


def test_every_way_says_how_it_is_verified() -> None:
    for platform in ALL_PLATFORMS:
        for way in plan(PINNED, None, platform, "cpu"):
            assert way.verified in ("sha256 pinned by llamalite", "npm's integrity check")
    (other,) = plan(PINNED, "pypi:0.11548", LINUX, "cpu")
    assert other.verified == "pip's check against the index"


def test_a_source_that_has_not_the_build_says_what_it_has() -> None:
    with pytest.raises(LibraryNotFound, match=r"npm's package holds b11146\)"):
        plan(PINNED, "b9999", LINUX, "cpu", ("npm",))
    with pytest.raises(LibraryNotFound, match="no cuda wheel for linux-x64"):
        plan(PINNED, "pypi:0.11739", LINUX, "cuda")


def test_offline_names_every_source_and_a_way_that_fits_everyone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LLAMALITE_OFFLINE", "1")
    with pytest.raises(Offline) as caught:
        ensure_library()
    message = str(caught.value)
    for part in (
        "from GitHub: ",
        "from npm: @node-llama-cpp/linux-x64@3.22.1 (llama.cpp b11146)",
        "from PyPI: llama-cpp-py-sync==0.11739 (llama.cpp b11739, 5.5 MB, needs glibc ",
        "`llamalite lib install --platform linux-x64 --dest FOLDER`",
    ):
        assert part in message
    assert "\n" not in message
    assert "scripts/" not in message


# Wheels


def test_a_wheel_is_not_fetched_where_its_glibc_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (way,) = plan(PINNED, None, LINUX, "cpu", ("pypi",))
    monkeypatch.setattr(pypi, "glibc_version", lambda: (2, 36))
    expected = "PyPI's llama-cpp-py-sync needs glibc 2.38 and this machine has 2.36"
    assert way.problem() == expected
    with pytest.raises(DownloadError, match=expected):
        install(sources=("pypi",), say=lambda _: None)
    monkeypatch.setattr(pypi, "glibc_version", lambda: None)
    assert "C library is another one" in str(way.problem())
    monkeypatch.setattr(pypi, "glibc_version", lambda: (2, 38))
    assert way.problem() is None
    for platform in ("windows-x64", "macos-arm64"):
        (other,) = plan(PINNED, None, Platform.parse(platform), "cpu", ("pypi",))
        assert other.problem() is None  # for another machine, whose system isn't known


def test_the_wheels_are_pinned_whole() -> None:
    for pin in WHEELS.values():
        assert len(pin.sha256) == len(pin.contents_sha256) == 64
        assert pin.release == f"b{pin.version.split('.')[1]}"
        assert pin.n_bytes > 3_000_000


@pytest.fixture
def pin(no_wheels: Path, monkeypatch: pytest.MonkeyPatch) -> WheelPin:
    pin = make_wheel(no_wheels)
    monkeypatch.setattr(pypi, "WHEELS", {(str(HERE), "cpu"): pin})
    return pin


def with_uv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        pytest.skip("uv isn't on PATH")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setattr(pip, "find_installer", lambda: Installer((uv,), unpacks=True))


@pytest.mark.parametrize("client", ["pip", "uv"])
def test_a_wheel_is_installed_through_either_client(
    client: str, pin: WheelPin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("pip") if client == "pip" else with_uv(monkeypatch, tmp_path)
    installed = install(sources=("pypi",), say=lambda _: None)
    assert (installed.release, installed.backend) == (pin.release, "cpu")
    assert find_library() == installed.scan()
    names = {path.suffix for path in installed.folder.iterdir()}
    assert names <= {".so", ".json"}


@pytest.mark.parametrize("client", ["pip", "uv"])
def test_a_wheel_with_another_content_is_refused_by_either_client(
    client: str,
    pin: WheelPin,
    no_wheels: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    pytest.importorskip("pip") if client == "pip" else with_uv(monkeypatch, tmp_path)
    (path,) = no_wheels.iterdir()
    write_elf(tmp_path / "other.so", needed=("libevil.so",))
    with zipfile.ZipFile(path, "a") as wheel:
        wheel.write(tmp_path / "other.so", "llama_cpp_py_sync/libggml-evil.so")
    with pytest.raises(ChecksumMismatch, match=r"not the .* pinned: nothing was kept"):
        install(sources=("pypi",), say=lambda _: None)
    assert list_installed() == []


def test_a_wheel_for_another_system_is_asked_for_by_its_name(pin: WheelPin, tmp_path: Path) -> None:
    windows = WHEELS["windows-x64", "cpu"]
    way = WheelFetch(windows, Platform.parse("windows-x64"))
    (tmp_path / "a" / "into").mkdir(parents=True)
    with pytest.raises(DownloadError, match=r"llama-cpp-py-sync==0\.11739"):
        way.fetch(tmp_path / "a" / "into", tmp_path / "cache", None)  # only a Linux one is there
    assert list((tmp_path / "a").iterdir()) == [tmp_path / "a" / "into"]


# Local files


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("llama-b11146-bin-ubuntu-x64.tar.gz", "b11146"),
        ("llama_cpp_py_sync-0.11739-1cpu-py3-none-win_amd64.whl", "b11739"),
        ("llama.cpp-v0.5.0", "v0.5.0"),
        ("node-llama-cpp-linux-x64-3.22.1.tgz", None),
        ("libb2000000-x", None),
    ],
)
def test_the_release_that_a_name_says(name: str, release: str | None) -> None:
    assert release_in_name(name) == release


def test_a_local_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMALITE_OFFLINE", "1")
    archive = tmp_path / "llama-b7777-bin-ubuntu-x64.tar.gz"
    archive.write_bytes(official_archive())
    said: list[str] = []
    installed = install(local=archive, say=said.append)
    assert (installed.release, installed.source) == ("b7777", "local")
    assert installed.verified == "not verified (local file)"
    assert "not verified (local file)" in said[-1]
    assert installed.folder.name == "b7777-cpu-linux-x64-local"
    assert find_library() == installed.scan()


def test_a_local_folder_is_copied_without_what_else_is_there(tmp_path: Path) -> None:
    own = write_build(tmp_path / "own" / "build" / "bin")
    (own / "libggml-base.so").rename(own / "libggml-base.so.0")
    (own / "libggml-base.so").symlink_to("libggml-base.so.0")
    (own / "libmtmd.so").symlink_to(write_elf(tmp_path / "outside.so"))
    (own / "llama-server").write_text("program")
    (own / "notes.txt").write_text("mine")
    write_elf(own / "libggml-vulkan.so")
    os.chmod(own / "libllama.so", 0o600)
    first = install(local=tmp_path / "own", say=lambda _: None)
    assert first.backend == "vulkan"
    assert first.release.startswith("own-")
    names = {path.name: path.is_symlink() for path in first.folder.iterdir()}
    assert "llama-server" not in names
    assert "notes.txt" not in names
    assert (names["libggml-base.so"], names["libmtmd.so"]) == (True, False)
    shutil.rmtree(tmp_path / "own")
    assert len(first.scan().core) == 3


def test_a_release_from_a_file_is_no_path(tmp_path: Path, own_home: Path) -> None:
    own = write_build(tmp_path / "own")
    record = '{"buildOptions": {"llamaCpp": {"release": "../../../b1"}}}'
    (own / "_nlcBuildMetadata.json").write_text(record)
    installed = install(local=own, say=lambda _: None)
    assert installed.release.startswith("own-")
    assert installed.folder.parent == own_home / "libs"


def test_a_local_build_never_takes_a_published_ones_place(tmp_path: Path) -> None:
    table = release_table(official_archive(), str(HERE))
    with serving() as github, pytest.MonkeyPatch.context() as patch:
        github.files[table.assets[0].file] = official_archive()
        patch.setenv("LLAMALITE_GITHUB_URL", github.url)
        published = install(table=table, sources=("github",), say=lambda _: None)
    archive = tmp_path / "llama-b11146-bin.tar.gz"
    archive.write_bytes(official_archive(top="x"))
    local = install(local=archive, say=lambda _: None)
    assert local.folder != published.folder
    assert {item.source for item in list_installed()} == {"github", "local"}
    archive.write_bytes(official_archive(top="y"))
    assert install(local=archive, say=lambda _: None).folder == local.folder
    assert len(list_installed()) == 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("absent.zip", None, "there is no "),
        ("libs.rar", b"Rar!", "neither a folder nor an archive"),
        ("libs.zip", b"PK nonsense", "libs.zip"),
        ("libs.tar.gz", b"", "libs.tar.gz"),
    ],
)
def test_a_local_file_that_is_no_build_is_one_line(
    tmp_path: Path, own_home: Path, name: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((DownloadError, LibraryNotFound)) as caught:
        install(local=tmp_path / name, say=lambda _: None)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list_installed() == []


def test_a_local_folder_for_another_machine(tmp_path: Path) -> None:
    write_build(tmp_path / "arm", "arm64")
    with pytest.raises(LibraryIncompatible, match="built for linux-arm64"):
        install(local=tmp_path / "arm", say=lambda _: None)
    dest = tmp_path / "there"
    installed = install(
        local=tmp_path / "arm", platform="linux-arm64", dest=dest, say=lambda _: None
    )
    assert installed.folder == dest


# What came


def test_a_build_without_the_backend_asked_for_is_refused(tmp_path: Path) -> None:
    write_build(tmp_path / "own")
    with pytest.raises(DownloadError, match="no cuda library in it"):
        install("cuda", local=tmp_path / "own", say=lambda _: None)


def test_a_backend_that_cannot_be_loaded_is_a_note_or_an_error(tmp_path: Path) -> None:
    own = write_build(tmp_path / "own")
    write_elf(own / "libggml-hip.so", needed=("libamdhip64.so.99",))
    said: list[str] = []
    installed = install("rocm", local=own, say=said.append)
    assert installed.backend == "rocm"
    assert any(line.startswith("note: libggml-hip.so needs libamdhip64") for line in said)
    with pytest.raises(LibraryIncompatible, match=r"^libggml-hip\.so needs libamdhip64"):
        install("rocm", local=own, say=said.append, strict_backend=True)
    with pytest.raises(LibraryIncompatible, match=r"no libcuda\.so\.1"):
        install("cuda", say=said.append, strict_backend=True)


def test_a_folder_that_holds_another_build_is_not_replaced(tmp_path: Path) -> None:
    write_build(tmp_path / "own")
    dest = tmp_path / "dest"
    install(local=tmp_path / "own", dest=dest, say=lambda _: None)
    before = {path.name: path.stat().st_mtime_ns for path in dest.iterdir()}
    with pytest.raises(DownloadError, match=r"holds libllama own-\w+ \(cpu, linux-x64\) already"):
        install(dest=dest, say=lambda _: None)
    with pytest.raises(DownloadError, match="already"):
        install(local=tmp_path / "own", dest=dest, say=lambda _: None)
    assert {path.name: path.stat().st_mtime_ns for path in dest.iterdir()} == before
    (dest / "libllama.so").write_bytes(b"cut")
    install(local=tmp_path / "own", dest=dest, say=lambda _: None)
    assert {path.name for path in tmp_path.iterdir()} == {"own", "dest", "links"}


def test_a_backend_asked_for_is_found_among_installs(tmp_path: Path) -> None:
    own = write_build(tmp_path / "own")
    cpu = install(local=own, say=lambda _: None)
    write_elf(own / "libggml-vulkan.so")
    (own / "libllama.so").rename(own / "libllama.b1234.so")
    vulkan = install("vulkan", local=own, say=lambda _: None)
    assert (cpu.backend, vulkan.backend) == ("cpu", "vulkan")
    assert ensure_library(backend="vulkan").folder == vulkan.folder
    assert ensure_library().folder in (cpu.folder, vulkan.folder)


def test_npm_settings_choose_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    from llamalite.libs.sources.npm import _proxy

    config: dict[str, object] = {"https-proxy": "http://p:1", "noproxy": ["corp.example", ".in"]}
    assert _proxy(config, "https://registry.example/") == "http://p:1"
    assert _proxy(config, "https://npm.corp.example/") == ""
    assert _proxy(config, "https://a.in/x") == ""
    assert _proxy({"noproxy": [""]}, "https://registry.example/") is None
    assert NpmFetch("@a/b", "1", None, "cpu").resolve(None) == NpmFetch("@a/b", "1", None, "cpu")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
@pytest.mark.parametrize("name", ["x.tar.gz", "x.zip", "x" * 300 + ".zip"])
def test_a_local_file_that_cannot_be_read_is_one_line(tmp_path: Path, name: str) -> None:
    if len(name) < 99:
        os.mkfifo(tmp_path / name)
    with pytest.raises(LibraryNotFound, match=r"x\.\w+\S* can't be read: ") as caught:
        install(local=tmp_path / name, say=lambda _: None)
    assert "\n" not in str(caught.value)
    assert "LLAMALITE_HOME" not in str(caught.value)


@pytest.mark.parametrize(
    ("backend", "said"), [("abacus", "no abacus build"), ("opencl", "no opencl")]
)
def test_a_backend_nobody_has_heard_of_is_none_for_a_local_build(
    tmp_path: Path, backend: str, said: str
) -> None:
    write_build(tmp_path / "own")
    with pytest.raises((LibraryNotFound, DownloadError), match=said):
        install(backend, local=tmp_path / "own", say=lambda _: None)


def test_pip_has_little_patience_whatever_it_is_set_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    argv = pip._command(Installer(("pip",), False), "x==1", tmp_path, None, IndexState())
    assert argv[argv.index("--timeout") + 1] == "15"
    argv = pip._command(Installer(("pip",), False), "x==1", tmp_path, None, index._impatient("pip"))
    assert argv[argv.index("--timeout") + 1] == "4"


def test_a_slow_pip_is_said_to_be_at_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("llamalite.libs.sources.client.SAY_AFTER_S", (0.2,))
    slow = (sys.executable, "-c", "import time; time.sleep(0.5)")
    monkeypatch.setattr(pip, "find_installer", lambda: Installer(slow, unpacks=False))
    monkeypatch.setattr(pip, "index_state", lambda *_, **__: IndexState())
    said: list[str] = []
    with pytest.raises(DownloadError, match="0 wheels"):
        download_wheel("x==1", tmp_path, said.append)
    assert said == ["pip is still fetching x==1"]
