"""llamalite on AArch64, under qemu's user-mode emulation: the layout chosen, the same tokens.

Needs a folder made by `.ci/aarch64_root`, so `.ci/run` runs it and the README's test command
doesn't.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llamalite.libs.install import ensure_library, fetch_npm, install

PINNED = "3.22.1"
OLDER = {"3.10.0": "M1,C1", "3.19.1": "M5,C7", "3.20.0": "M7,C8"}
CHECKOUT = Path(__file__).parents[2]
CHILD = CHECKOUT / "tests" / "support" / "abi_child.py"
ROOT = os.environ.get("LLAMALITE_TEST_AARCH64_ROOT", "")
PROMPT = "Once upon a time"

pytestmark = [
    pytest.mark.aarch64,
    pytest.mark.skipif(
        not ROOT, reason="LLAMALITE_TEST_AARCH64_ROOT names no folder made by .ci/aarch64_root"
    ),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("aarch64-home")


@pytest.fixture(scope="module")
def pinned(home: Path) -> Path:
    found = install(platform="linux-arm64", dest=home / "libs" / PINNED, sources=("npm",))
    assert f"@node-llama-cpp/linux-arm64@{PINNED}" in found.origin
    return found.folder


def emulated(library: Path, home: Path, *arguments: str, **extra: str) -> dict[str, object]:
    program = str(Path(ROOT) / "python")
    environment = {"LLAMALITE_HOME": str(home), "LLAMALITE_PYTHON": program, **extra}
    return printed(program, library, arguments, environment | {"PYTHONPATH": str(CHECKOUT)})


def printed(
    program: str, library: Path, arguments: tuple[str, ...], environment: dict[str, str]
) -> dict[str, object]:
    done = subprocess.run(
        [program, *arguments],
        env={**os.environ, "LLAMALITE_LIB": str(library), **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def test_same_greedy_tokens_as_on_x86_64(pinned: Path, home: Path, stories: Path) -> None:
    flags = ["--raw", "--threads", "1", "--temp", "0", "-n", "16", "--json"]
    command = ("-m", "llamalite", "run", str(stories), *flags, "--", PROMPT)
    ours = printed(sys.executable, ensure_library().folder, command, {})
    assert isinstance(ours["tokens"], list)
    assert len(ours["tokens"]) == 16
    assert emulated(pinned, home, *command)["tokens"] == ours["tokens"]


@pytest.mark.parametrize("route", ["", "values"], ids=["written-bytes", "values-alone"])
def test_layouts_of_the_pinned_build(pinned: Path, home: Path, route: str) -> None:
    seen = emulated(pinned, home, str(CHILD), EXPECTED_LAYOUTS="M8,C8", ROUTE=route)
    assert seen == {"found": ["M8", "C8"], "wrong_taken": [], "loss_unnoticed": []}


@pytest.mark.parametrize("version", OLDER)
def test_layouts_of_older_builds(version: str, home: Path) -> None:
    folder = home / "libs" / version
    fetch_npm("@node-llama-cpp/linux-arm64", version, folder)
    expected = OLDER[version]
    seen = emulated(folder, home, str(CHILD), EXPECTED_LAYOUTS=expected)
    assert seen == {"found": expected.split(","), "wrong_taken": [], "loss_unnoticed": []}
