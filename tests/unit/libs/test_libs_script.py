"""`scripts/fetch_libllama.py` as it is run: its output, its exit codes, and being stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.libllama_files import write_build
from support.loopback_github import serving

from llamalite.libs.platforms import current_platform

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "fetch_libllama.py"
HERE = current_platform()

pytestmark = pytest.mark.skipif(
    HERE.os != "linux", reason="the made-up builds are ELF files, which only Linux loads"
)


def script(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(SCRIPT), *arguments],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        **{"stdout": subprocess.PIPE, **options},  # type: ignore[call-overload]
    )


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        [""],
        ["--dest", ""],
        ["--release", ""],
        ["--backend", " "],
        ["--release", "next"],
        ["--backend", "cuda/.."],
        ["--dest", "~nobody99/x"],
        ["https://example.invalid/x.zip"],
    ],
)
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    done = script(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint(done).startswith("fetch_libllama")


def test_a_folder_that_can_be_none_is_one_line(tmp_path: Path) -> None:
    write_build(tmp_path / "own", HERE.arch)
    done = script("--no-test", "--dest", str(tmp_path / ("x" * 300)), str(tmp_path / "own"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "choose another --dest" in complaint(done)


def test_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    own = write_build(tmp_path / "own", HERE.arch)
    with open("/dev/full", "w") as full:
        done = script("--no-test", "--quiet", str(own), stdout=full)
    assert done.returncode == 1
    assert "No space left on device" in complaint(done)
    assert len(done.stderr.splitlines()) == 1
    with open("/dev/full", "w") as full:
        assert script("--list", stdout=full).returncode == 1


@pytest.mark.parametrize("module", ["argparse", "llamalite.errors", "llamalite.libs.find"])
def test_stopped_while_it_starts(module: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-I", "-X", "importtime", str(SCRIPT), "--list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    for line in child.stderr:
        if line.rpartition("|")[2].strip() == module:
            child.send_signal(signal.SIGINT)
            break
    stdout, stderr = child.communicate(timeout=30)
    said = [line for line in stderr.splitlines() if not line.startswith("import time:")]
    assert (child.returncode, stdout, said) == (130, "", ["fetch_libllama: stopped"])


def test_stopped_while_it_fetches() -> None:
    with serving() as github:
        github.swallow = True
        child = subprocess.Popen(
            [sys.executable, str(SCRIPT), "--source", "github"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "LLAMALITE_GITHUB_URL": github.url, "LLAMALITE_BACKEND": "cpu"},
        )
        time.sleep(1.0)
        child.send_signal(signal.SIGINT)
        stdout, stderr = child.communicate(timeout=30)
    assert (child.returncode, stdout) == (130, "")
    assert stderr.splitlines()[-1] == "fetch_libllama: stopped"
    assert "Traceback" not in stderr
