from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

_NETWORK_SETTINGS = (
    "LLAMALITE_LIB",
    "LLAMALITE_LIB_SOURCES",
    "LLAMALITE_OFFLINE",
    "LLAMALITE_GITHUB_URL",
    "LLAMALITE_GITHUB_API_URL",
    "GITHUB_TOKEN",
    "GH_TOKEN",
    "HF_HUB_OFFLINE",
    *(name for stem in ("http_proxy", "https_proxy", "all_proxy") for name in (stem, stem.upper())),
)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test an empty LLAMALITE_HOME and none of the user's settings."""
    from llamalite.libs.transfer import reach

    for name in _NETWORK_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    monkeypatch.setenv("LLAMALITE_HOME", str(home))
    reach.forget_answers()
    return home


@pytest.fixture
def no_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let pip and uv look in one empty folder alone, which is returned."""
    links = tmp_path / "links"
    links.mkdir()
    for name in ("PIP_FIND_LINKS", "UV_FIND_LINKS"):
        monkeypatch.setenv(name, str(links))
    for name in ("PIP_NO_INDEX", "UV_NO_INDEX"):
        monkeypatch.setenv(name, "1")
    return links


@pytest.fixture
def fake_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what puts an `npm` on PATH that answers `config list` and runs a line for `pack`."""

    def put(pack: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "npm"
        program.write_text(
            f"#!{sys.executable}\n"
            "import json, shutil, sys, time\n"
            "if sys.argv[1] == 'config':\n"
            "    print(json.dumps({'proxy': None}))\n"
            "else:\n"
            f"    {pack}\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return put
