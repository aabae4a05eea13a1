"""Installs by several processes at once, and killed at any point: real processes, real signals."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.elf import elf_bytes
from support.libllama_files import CORE, add_file
from support.loopback_github import LoopbackGitHub, serving

from llamalite.libs.find import find_library, list_installed
from llamalite.libs.lock import LOCK_NAME, install_lock
from llamalite.libs.platforms import current_platform

ROOT = Path(__file__).resolve().parents[3]
HERE = current_platform()
FILE = "llama-b11146-bin-test.tar.gz"
N_PADDING = 2 << 20

pytestmark = [
    pytest.mark.skipif(HERE.os != "linux", reason="the made-up builds are ELF files for Linux"),
    pytest.mark.usefixtures("no_wheels"),
]


def large_archive() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, needed in CORE.items():
            add_file(tar, f"top/{name}", elf_bytes(arch=HERE.arch, soname=name, needed=needed))
        add_file(tar, "top/LICENSE-large", random.Random(1).randbytes(N_PADDING))
    return gzip.compress(stream.getvalue(), compresslevel=1, mtime=0)


@pytest.fixture(scope="module")
def archive() -> bytes:
    return large_archive()


@pytest.fixture
def github(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackGitHub]:
    with serving() as github:
        github.files[FILE] = archive
        monkeypatch.setenv("LLAMALITE_GITHUB_URL", github.url)
        yield github


@pytest.fixture
def program(tmp_path: Path, archive: bytes) -> Path:
    """A program that installs from the loopback GitHub; its argument says where it ends itself."""
    path = tmp_path / "installs.py"
    path.write_text(f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from llamalite.libs.sources import github
from llamalite.libs import install, staging
from llamalite.libs.sources.assets import Asset
from llamalite.libs.sources.releases import ReleaseTable

signal.signal(signal.SIGINT, signal.default_int_handler)
digest = {hashlib.sha256(archive).hexdigest()!r}
asset = Asset({FILE!r}, {len(archive)}, digest, {str(HERE)!r}, ("cpu",))
table = ReleaseTable("b11146", {{}}, (asset,), {{}})

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def after(home, name):
    real = getattr(home, name)
    def both(*given, **named):
        real(*given, **named)
        die()
    setattr(home, name, both)

point = sys.argv[1] if len(sys.argv) > 1 else ""
if point == "after the download":
    github.unpack_libraries = die
elif point == "after unpacking":
    install.scan_folder = die
elif point == "before the record":
    staging._write_record = die
elif point == "after the record":
    after(staging, "_write_record")
elif point == "before the rename":
    staging._move_into_place = die
elif point == "after the rename":
    after(staging, "_move_into_place")
elif point == "before the lock is given back":
    staging.Place.drop_downloads = die
print("started", flush=True)
print(install.install(table=table, sources=("github",)).folder, flush=True)
""")
    return path


def start(program: Path, *arguments: str) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, str(program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "started\n"
    return child


def finish(child: subprocess.Popen[str], timeout_s: float = 30) -> tuple[str, str]:
    out, errors = child.communicate(timeout=timeout_s)
    assert child.returncode == 0, errors
    return out, errors


def whole(home: Path) -> bool:
    """Check that what is picked up is a whole install, and say whether there is one."""
    installs = list_installed()
    files = find_library()
    assert (files is None) == (installs == [])
    if files is None:
        return False
    assert installs[0].folder == home / "libs" / f"b11146-cpu-{HERE}"
    assert (files.folder / "LICENSE-large").stat().st_size == N_PADDING
    assert len(files.core) == 3
    assert len(files.backends) == 1
    return True


def n_kept(home: Path) -> int:
    """Return the bytes that lie under a home, where files may go at any time."""
    total = 0
    for folder, _, names in os.walk(home):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += (Path(folder) / name).stat().st_size
    return total


def starts_of_ranges(github: LoopbackGitHub) -> list[int]:
    return [
        int(headers["range"].removeprefix("bytes=").split("-")[0])
        for headers in github.headers
        if "range" in headers
    ]


def test_killed_ten_times_it_resumes_and_completes(
    github: LoopbackGitHub, program: Path, own_home: Path, archive: bytes
) -> None:
    github.slow = 1 << 19
    chance = random.Random(11146)
    for number in range(10):
        n_before = n_kept(own_home)
        child = start(program)
        deadline = time.monotonic() + 20
        while number % 2 and n_kept(own_home) == n_before and time.monotonic() < deadline:
            time.sleep(0.01)  # at moments that are random, but every other time it got somewhere
        time.sleep(chance.uniform(0.0, 0.25))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert not whole(own_home)
    github.slow = None
    _, errors = finish(start(program))
    assert whole(own_home)
    starts = starts_of_ranges(github)
    assert len(starts) >= 3
    assert starts == sorted(starts)
    assert 0 < starts[-1] < len(archive)
    assert "waiting" not in errors
    assert [path.name for path in (own_home / "libs").iterdir()] == [f"b11146-cpu-{HERE}"]


@pytest.mark.parametrize(
    ("point", "is_there"),
    [
        ("after the download", False),
        ("after unpacking", False),
        ("before the record", False),
        ("after the record", False),
        ("before the rename", False),
        ("after the rename", True),
        ("before the lock is given back", True),
    ],
)
def test_killed_at_each_step(
    github: LoopbackGitHub, program: Path, own_home: Path, point: str, is_there: bool
) -> None:
    child = start(program, point)
    child.communicate(timeout=30)
    assert child.returncode == -signal.SIGKILL
    assert whole(own_home) == is_there
    finish(start(program))
    assert whole(own_home)
    if not is_there:  # otherwise there was nothing to do, and so no reason to tidy up
        assert len(list((own_home / "libs").iterdir())) == 1


def test_of_two_processes_one_waits_and_neither_fetches_twice(
    github: LoopbackGitHub, program: Path, own_home: Path
) -> None:
    github.slow = 2 << 20
    children = [start(program), start(program)]
    done = [finish(child) for child in children]
    assert {out for out, _ in done} == {f"{own_home / 'libs'}/b11146-cpu-{HERE}\n"}
    assert sum("another llamalite is installing in" in errors for _, errors in done) == 1
    assert sum("is already in" in errors for _, errors in done) == 1
    assert len([path for path in github.requests if path.startswith("/storage/")]) == 1
    assert whole(own_home)


def test_one_that_waits_can_be_interrupted_and_takes_over_from_the_dead(
    github: LoopbackGitHub, program: Path, own_home: Path
) -> None:
    github.stop_at = 1000
    first = start(program)
    deadline = time.monotonic() + 20
    while not github.requests and time.monotonic() < deadline:
        time.sleep(0.02)
    second, third = start(program), start(program)
    for child in (second, third):
        assert child.stderr is not None
        assert "waiting" in child.stderr.readline()
    second.send_signal(signal.SIGINT)
    _, errors = second.communicate(timeout=10)
    assert "KeyboardInterrupt" in errors
    assert first.poll() is None
    github.stop_at = None
    first.send_signal(signal.SIGKILL)
    first.communicate()
    finish(third)
    assert whole(own_home)


def test_one_at_a_time_among_threads(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    inside, most = [0], [0]
    guard = threading.Lock()

    def work(_: int) -> bool:
        with install_lock(folder, lambda _: None) as held:
            with guard:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.002)
            with guard:
                inside[0] -= 1
            return held

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(100)))
    assert most == [1]
    assert list(folder.iterdir()) == []


def test_a_file_system_without_locks_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(_: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("llamalite.locks._take", no_locks)
    said: list[str] = []
    with install_lock(tmp_path, said.append) as held:
        assert not held
    assert len(said) == 1
    assert "without locks" in said[0]


def test_an_error_under_the_lock_gives_it_back(tmp_path: Path) -> None:
    def fail() -> None:
        with install_lock(tmp_path, lambda _: None):
            assert (tmp_path / LOCK_NAME).exists()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    said: list[str] = []
    with install_lock(tmp_path, said.append):
        assert said == []
