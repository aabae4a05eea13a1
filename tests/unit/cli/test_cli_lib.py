from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_process import llamalite_here as llamalite
from support.elf import write_elf
from support.libllama_files import write_build
from support.unreachable_hosts import closed_port

from llamalite.libs.platforms import current_platform

NOWHERE = "/no/such/folder"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {
        "LLAMALITE_HOME": str(tmp_path / "home"),
        "LLAMALITE_LIB": "",
        "LLAMALITE_BACKEND": "",
        "LLAMALITE_LIB_SOURCES": "",
        "LLAMALITE_OFFLINE": "1",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files named as a build of libllama; nothing here opens them."""
    folder = tmp_path / "build"
    folder.mkdir()
    for name in ("libllama.so", "libggml.so", "libggml-base.so", "libggml-cpu-x64.so"):
        (folder / name).write_bytes(b"\x7fELF")
    return folder


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A build that looks loadable here but has no code in it."""
    if current_platform().os != "linux":
        pytest.skip("the made-up builds are for Linux")
    return write_build(tmp_path / "made-up", current_platform().arch)


@pytest.mark.parametrize(
    "args",
    [["lib"], ["lib", "foo"], ["lib", "list", "--backend=cuda"], ["lib", "use"], ["lib", "remove"]],
)
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
    done = llamalite("lib", "install", "--backend=cpu", env=env)
    assert (done.returncode, done.stdout) == (8, "")
    assert "LLAMALITE_OFFLINE" in done.stderr
    assert "github.com" in done.stderr
    assert done.stderr.count("\n") == 1


def test_auto_says_what_it_picked_and_why(env: dict[str, str]) -> None:
    env |= {"LLAMALITE_OFFLINE": "", "HF_HUB_OFFLINE": "", "LLAMALITE_LIB_SOURCES": "github"}
    env["LLAMALITE_GITHUB_URL"] = f"http://127.0.0.1:{closed_port()}"
    picked, failed = llamalite("lib", "install", "--platform=macos-arm64", env=env).stderr.split(
        "\n", 1
    )
    assert picked == "backend metal: every Mac with an Apple chip has an Apple GPU"
    assert "can't be reached: refused" in failed
    other = "linux-arm64" if str(current_platform()) != "linux-arm64" else "linux-x64"
    said = llamalite("lib", "install", f"--platform={other}", env=env).stderr
    assert f"backend cpu: what a {other} machine has can't be seen from here" in said


def test_the_environment_sets_the_default_backend(env: dict[str, str]) -> None:
    env["LLAMALITE_BACKEND"] = "abacus"
    done = llamalite("lib", "install", env=env)
    assert done.returncode == 3
    assert "abacus" in done.stderr
    assert "abacus" not in llamalite("lib", "install", "--backend=cpu", env=env).stderr


def test_a_backend_that_is_not_published_is_a_library_error(env: dict[str, str]) -> None:
    done = llamalite("lib", "install", "--backend=abacus", env=env)
    assert (done.returncode, done.stdout) == (3, "")
    assert "abacus" in done.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["--platform=beos-ppc"],
        ["--list", "--platform=beos-ppc"],
        ["--backend=cuda/.."],
        ["--release=next"],
        ["--list", "--release=next"],
        ["--source=ftp"],
        ["https://example.invalid/x.zip"],
        ["--dest=~nobody99/x"],
        ["~nobody99/x.zip"],
        [""],
        *([f"--{name}="] for name in ("dest", "release", "backend", "platform", "source")),
    ],
)
def test_what_can_be_no_name_exits_2(env: dict[str, str], args: list[str]) -> None:
    done = llamalite("lib", "install", *args, env=env)
    assert (done.returncode, done.stdout) == (2, "")
    *notices, complaint = done.stderr.splitlines()
    assert complaint.startswith("llamalite: ")
    assert all(notice.startswith("backend cpu: ") for notice in notices)


@pytest.mark.parametrize("action", ["use", "remove"])
def test_an_empty_name_exits_2(env: dict[str, str], action: str) -> None:
    done = llamalite("lib", action, "", env=env)
    assert done.returncode == 2
    assert "NAME is empty" in done.stderr


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


def test_a_folder_is_installed_listed_used_and_removed(env: dict[str, str], build: Path) -> None:
    first = llamalite("lib", "install", "--no-test", "--json", str(build), env=env)
    assert first.returncode == 0, first.stderr
    installed = json.loads(first.stdout)
    assert installed["source"] == "local"
    assert installed["active"] is True
    assert installed["self_test"]["state"] == "none"
    (listed,) = json.loads(llamalite("lib", "list", "--json", env=env).stdout)
    assert (listed["folder"], listed["in_use"]) == (installed["folder"], True)
    line = llamalite("lib", "list", env=env).stdout
    assert line.startswith(f"*  {Path(installed['folder']).name}  ")
    assert llamalite("lib", "path", env=env).stdout == f"{installed['folder']}\n"

    used = llamalite("lib", "use", "--no-test", str(build), env=env)
    assert (used.returncode, used.stdout) == (0, f"{build}\n")
    listed = llamalite("lib", "list", env=env)
    assert listed.stdout.startswith("   ")
    assert f"in use: {build} (by 'lib use')" in listed.stderr

    name = Path(installed["folder"]).name
    removed = llamalite("lib", "remove", "--json", name, env=env)
    assert json.loads(removed.stdout) == {"removed": [installed["folder"]]}
    assert not Path(installed["folder"]).exists()


def test_names_that_no_install_has(env: dict[str, str], build: Path) -> None:
    assert llamalite("lib", "install", "--no-test", str(build), env=env).returncode == 0
    for action in ("use", "remove"):
        done = llamalite("lib", action, "nonsense", env=env)
        assert (done.returncode, done.stdout) == (3, "")
        assert "there is no install nonsense" in done.stderr
        assert done.stderr.count("\n") == 1


def test_an_install_that_fails_its_test_stays_but_is_not_used(
    env: dict[str, str], build: Path, tmp_path: Path
) -> None:
    good = llamalite("lib", "install", "--no-test", str(build), env=env).stdout.strip()
    other = write_build(tmp_path / "other", current_platform().arch)
    write_elf(other / "libggml-cpu-x64.so", arch=current_platform().arch, soname="another")
    write_elf(
        other / "libllama.so",
        arch=current_platform().arch,
        needed=("libggml.so", "libggml-base.so", "libc.so.6"),
    )
    done = llamalite("lib", "install", "--json", str(other), env=env)
    assert done.returncode == 3, done.stderr
    failed = json.loads(done.stdout)
    assert failed["folder"] != good
    assert failed["self_test"]["state"] == "failed"
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"llamalite: libllama is installed in {failed['folder']} but isn't used")
    assert f"{good} stays in use" in line
    assert llamalite("lib", "path", env=env).stdout == f"{good}\n"
    assert "Traceback" not in done.stderr


def test_what_cannot_be_used_is_said_in_one_line_and_changes_nothing(
    env: dict[str, str], build: Path, tmp_path: Path
) -> None:
    good = llamalite("lib", "install", "--no-test", str(build), env=env).stdout
    for name, expected in {
        "text": "is not a shared library",
        "alone": "misses its sibling",
        "foreign": "is built for",
        "newer": "needs glibc 2.99",
        "absent": "there is no folder",
    }.items():
        folder = bad_folder(name, tmp_path / name)
        done = llamalite("lib", "use", str(folder), env=env)
        assert (done.returncode, done.stdout) == (3, "")
        assert expected in done.stderr
        assert done.stderr.count("\n") == 1
        assert llamalite("lib", "path", env=env).stdout == good


def bad_folder(name: str, folder: Path) -> Path:
    here = current_platform().arch
    if name == "foreign":
        return write_build(folder, "arm64" if here == "x64" else "x64")
    if name == "newer":
        write_build(folder, here)
        write_elf(
            folder / "libggml-base.so",
            arch=here,
            needed=("libc.so.6",),
            versions={"libc.so.6": ("GLIBC_2.99",)},
        )
    elif name != "absent":
        folder.mkdir()
        (folder / "libllama.so").write_text("hello")
    if name == "alone":
        write_elf(folder / "libllama.so", arch=here)
    return folder


def test_what_is_on_offer_needs_no_network_for_the_pinned_release(env: dict[str, str]) -> None:
    env["PATH"] = "/nonexistent"
    done = llamalite("lib", "install", "--list", "--json", env=env)
    assert done.returncode == 0, done.stderr
    offers = json.loads(done.stdout)
    assert {offer["platform"] for offer in offers} == {
        "linux-x64", "linux-arm64", "macos-arm64", "macos-x64", "windows-x64", "windows-arm64",
    }  # fmt: skip
    assert {offer["source"] for offer in offers} == {"github", "npm", "pypi"}
    assert all(offer["verified"] for offer in offers)
    assert len({tuple(offer.items()) for offer in offers}) == len(offers)
    text = llamalite("lib", "install", "--list", "--platform=linux-arm64", env=env).stdout
    assert text.count("\n") == len([o for o in offers if o["platform"] == "linux-arm64"])
    assert "13.6 MB" in text

    other = llamalite("lib", "install", "--list", "--release=b9000", env=env)
    assert (other.returncode, other.stdout) == (8, "")
    assert "network use is off" in other.stderr


def test_a_record_drives_no_terminal(env: dict[str, str], build: Path) -> None:
    folder = Path(llamalite("lib", "install", "--no-test", str(build), env=env).stdout.strip())
    record = json.loads((folder / "install.json").read_text())
    record |= {"release": "b1\x1b[31m\nb2", "verified": "\x07" * 1000}
    (folder / "install.json").write_text(json.dumps(record))
    listed = llamalite("lib", "list", env=env)
    assert listed.returncode == 0
    assert listed.stdout.count("\n") == 1
    assert "b1\\x1b[31m\\nb2" in listed.stdout
    assert listed.stdout.strip().isprintable()
    assert len(listed.stdout) < 1000


def test_one_wrong_name_keeps_all_from_being_removed(env: dict[str, str], build: Path) -> None:
    folder = Path(llamalite("lib", "install", "--no-test", str(build), env=env).stdout.strip())
    done = llamalite("lib", "remove", folder.name, "nonsense", env=env)
    assert (done.returncode, done.stdout) == (3, "")
    assert folder.is_dir()


def test_a_chosen_build_that_is_gone_is_said(env: dict[str, str], build: Path) -> None:
    folder = llamalite("lib", "install", "--no-test", str(build), env=env).stdout.strip()
    llamalite("lib", "use", "--no-test", str(build), env=env)
    shutil.rmtree(build)
    for action in ("path", "list"):
        done = llamalite("lib", action, env=env)
        assert done.returncode == 0
        assert f"{build}" in done.stderr
        assert f"; {folder} is used" in done.stderr


def test_without_a_home_folder_one_line_says_what_to_set(env: dict[str, str]) -> None:
    env["LLAMALITE_HOME"] = "~nobody99/x"
    for args in (["install", "--backend=cpu"], ["list"], ["path"]):
        done = llamalite("lib", *args, env=env)
        assert (done.returncode, done.stdout) == (2, "")
        assert "LLAMALITE_HOME" in done.stderr
        assert done.stderr.count("\n") == 1
