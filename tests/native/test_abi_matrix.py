"""Ten builds of libllama over a year and more: same layout facts, same tokens.

Downloads about 80 MB once, so `.ci/run` runs it and the README's test command doesn't.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from llamalite import config
from llamalite.libs.install import fetch_npm

BUILDS = {
    "3.10.0": ("b5640", "M1,C1"),
    "3.12.0": ("b6122", "M2,C2"),
    "3.14.0": ("b6673", "M2,C3"),
    "3.15.0": ("b7698", "M5,C4"),
    "3.17.1": ("b8179", "M5,C4"),
    "3.19.0": ("b9842", "M5,C7"),
    "3.19.1": ("b10068", "M5,C7"),
    "3.20.0": ("b10361", "M7,C8"),
    "3.21.1": ("v0.4.0", "M8,C8"),
    "3.22.1": ("v0.5.0", "M8,C8"),
}
PROMPT = "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n"
TOKENS = [504, 6376, 4461, 314, 253, 966, 282, 260, 2591, 506, 5264, 24484, 8118, 281, 253, 1678]
CHILD = Path(__file__).parents[1] / "support" / "abi_child.py"

pytestmark = [
    pytest.mark.matrix,
    pytest.mark.skipif(
        (sys.platform, platform.machine()) != ("linux", "x86_64"),
        reason="the packages compared are for Linux on x86-64",
    ),
]


@pytest.fixture(scope="module", params=BUILDS)
def build(request: pytest.FixtureRequest) -> tuple[str, Path]:
    folder = config.home() / "test-builds" / f"linux-x64-{request.param}"
    if not folder.exists():
        fetch_npm("@node-llama-cpp/linux-x64", request.param, folder)
    return request.param, folder


def run(folder: Path, *arguments: str, **extra: str) -> str:
    environment = {**os.environ, "LLAMALITE_LIB": str(folder), **extra}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_same_greedy_tokens_on_every_build(build: tuple[str, Path], smollm2: Path) -> None:
    _, folder = build
    flags = ["--threads", "1", "--temp", "0", "-n", "16", "--json"]
    printed = run(folder, "-m", "llamalite", "run", str(smollm2), "--raw", *flags, "--", PROMPT)
    assert json.loads(printed)["tokens"] == TOKENS


@pytest.mark.parametrize("route", ["", "libffi", "values"])
def test_layouts_come_from_the_library_alone(build: tuple[str, Path], route: str) -> None:
    version, folder = build
    expected = BUILDS[version][1]
    seen = json.loads(run(folder, str(CHILD), EXPECTED_LAYOUTS=expected, ROUTE=route))
    assert ",".join(seen["found"]) == expected
    assert seen["wrong_taken"] == []
    assert seen["loss_unnoticed"] == []
