from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_process import llamalite

NOWHERE = "/no/such/folder"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"LLAMALITE_HOME": str(tmp_path), "LLAMALITE_LIB": "", "LLAMALITE_OFFLINE": "1"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files named as a build of libllama; nothing here opens them."""
    folder = tmp_path / "build"
    folder.mkdir()
    for name in ("libllama.so", "libggml.so", "libggml-base.so", "libggml-cpu-x64.so"):
        (folder / name).write_bytes(b"\x7fELF")
    return folder


@pytest.mark.parametrize("args", [["lib"], ["lib", "foo"], ["lib", "list", "--backend=cuda"]])
def test_wrong_actions_exit_2(env: dict[str, str], args: list[str]) -> None:
    done = llamalite(*args, env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("llamalite: wrong arguments")
    assert done.stderr.count("\n") == 1


def test_nothing_installed(env: dict[str, str]) -> None:
    listed = llamalite("lib", "list", env=env)
    assert (listed.returncode, listed.stdout) == (0, "")
    assert "nothing is installed" in listed.stderr
    assert llamalite("lib", "list", "--json", "-q", env=env).stdout == "[]\n"
    path = llamalite("lib", "path", env=env)
    assert (path.returncode, path.stdout) == (3, "")
    assert "llamalite lib install" in path.stderr


def test_offline_install_says_what_it_would_fetch(env: dict[str, str]) -> None:
    done = llamalite("lib", "install", env=env)
    assert (done.returncode, done.stdout) == (8, "")
    assert "LLAMALITE_OFFLINE" in done.stderr
    assert "github.com" in done.stderr
    assert done.stderr.count("\n") == 1


def test_unknown_platform_and_backend_are_library_errors(env: dict[str, str]) -> None:
    for flag in ("--platform=beos-ppc", "--backend=abacus"):
        done = llamalite("lib", "install", flag, env=env)
        assert (done.returncode, done.stdout) == (3, "")
        assert flag.split("=")[1] in done.stderr


def test_the_override_is_the_path(env: dict[str, str], folder: Path) -> None:
    env["LLAMALITE_LIB"] = str(folder)
    assert llamalite("lib", "path", env=env).stdout == f"{folder}\n"
    assert json.loads(llamalite("lib", "path", "--json", env=env).stdout)["folder"] == str(folder)
    assert str(folder) in llamalite("lib", "list", env=env).stderr


def test_a_faulty_override_is_said_and_does_not_stop_the_list(env: dict[str, str]) -> None:
    env["LLAMALITE_LIB"] = NOWHERE
    path = llamalite("lib", "path", env=env)
    assert path.returncode == 3
    assert NOWHERE in path.stderr
    listed = llamalite("lib", "list", env=env)
    assert listed.returncode == 0
    assert NOWHERE in listed.stderr
