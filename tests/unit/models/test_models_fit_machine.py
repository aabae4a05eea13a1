"""What this machine has free: RAM within control groups' limits, and devices."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from llamalite.core.trial import TrialDevice
from llamalite.errors import LibraryIncompatible
from llamalite.models.fit import machine
from llamalite.models.fit.machine import DeviceMemory, Machine, Ram, free_memory, free_ram

GIB = 1 << 30


def test_free_ram_is_what_the_system_calls_available() -> None:
    found, memory = free_ram(), psutil.virtual_memory()
    assert found.free_bytes is not None
    assert found.total_bytes <= memory.total
    if not found.limit:
        assert found.free_bytes == pytest.approx(memory.available, rel=0.1)
        assert found.total_bytes == memory.total


def test_without_proc_psutil_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_PROC", tmp_path)
    assert free_ram().total_bytes == psutil.virtual_memory().total
    monkeypatch.setattr(psutil, "virtual_memory", lambda: {}["MemTotal"])
    assert free_ram() == Ram(None, 0)


class Groups:
    """A process's view of control groups, in files as the kernel writes them."""

    def __init__(self, folder: Path) -> None:
        self.proc = folder / "proc"
        self.mounted = folder / "with space"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "meminfo").write_text("MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n")

    def mount(self, groups: str, kind: str, root: str = "/") -> None:
        mounted = str(self.mounted).replace(" ", "\\040")
        (self.proc / "self" / "cgroup").write_text(groups)
        (self.proc / "self" / "mountinfo").write_text(
            f"30 23 0:26 / / rw - ext4 /dev/sda rw\n"
            f"31 23 0:27 {root} {mounted} rw,nosuid - {kind}\n"
        )

    def write(self, group: str, **files: object) -> None:
        folder = self.mounted / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name.replace("__", ".", 1)).write_text(f"{content}\n")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    found = Groups(tmp_path)
    monkeypatch.setattr(machine, "_PROC", found.proc)
    return found


def v2(limit: object, used: int, cached: int, high: object = "max") -> dict[str, object]:
    stat = f"anon 1\nfile {cached}\nactive_file {cached // 2}\ninactive_file {cached // 4}"
    return {
        "memory__max": limit,
        "memory__high": high,
        "memory__current": used,
        "memory__stat": f"{stat}\nslab_reclaimable {cached // 4}",
    }


def test_a_limit_of_version_2_counts_what_can_be_given_back_as_free(groups: Groups) -> None:
    groups.mount("0::/box\n", "cgroup2 cgroup2 rw")
    groups.write("box", **v2(2 * GIB, used=GIB, cached=GIB // 2))
    assert free_ram() == Ram(
        3 * GIB // 2, 2 * GIB, f"the memory limit of the control group {groups.mounted}/box"
    )
    groups.write("box", **v2("max", used=GIB, cached=0))
    assert free_ram() == Ram(4 * GIB, 8 * GIB)
    groups.write("box", **v2("max", used=GIB, cached=0, high=3 * GIB))  # throttled from there on
    assert free_ram().free_bytes == 2 * GIB
    groups.write("box", **v2(GIB, used=2 * GIB, cached=0))
    assert free_ram().free_bytes == 0
    groups.write("box", **v2(64 * GIB, used=0, cached=0))  # more than there is
    assert free_ram() == Ram(4 * GIB, 8 * GIB)


def test_the_groups_around_limit_too(groups: Groups) -> None:
    groups.mount("0::/outer/inner\n", "cgroup2 cgroup2 rw")
    groups.write("outer/inner", **v2("max", used=0, cached=0))
    groups.write("outer", **v2(3 * GIB, used=2 * GIB, cached=0))
    assert free_ram().free_bytes == GIB
    assert free_ram().limit.endswith("/outer")


@pytest.mark.parametrize(
    ("group", "root"),
    [("/docker/abc", "/docker/abc"), ("/", "/"), ("/../..", "/"), ("/elsewhere", "/docker/abc")],
)
def test_inside_a_container_the_mounted_group_counts(groups: Groups, group: str, root: str) -> None:
    groups.mount(f"0::{group}\n", "cgroup2 cgroup2 rw", root)
    groups.write("", **v2(GIB, used=0, cached=0))
    assert free_ram().free_bytes == GIB


def test_a_limit_of_version_1(groups: Groups) -> None:
    groups.mount("5:cpu,memory:/box\n0::/box\n", "cgroup cgroup rw,cpu,memory")
    stat = f"active_file 7\ntotal_active_file {GIB // 4}\ntotal_inactive_file {GIB // 4}"
    files = {"memory__usage_in_bytes": GIB, "memory__stat": stat}
    groups.write("box", memory__limit_in_bytes=2 * GIB, **files)
    groups.write("", memory__limit_in_bytes=0x7FFFFFFFFFFFF000, **files)
    assert free_ram().free_bytes == 3 * GIB // 2


def test_odd_files_limit_nothing(groups: Groups) -> None:
    for table in ("", "nonsense\n", "0::/box\n"):
        groups.mount(table, "cgroup2 cgroup2 rw")
        assert free_ram() == Ram(4 * GIB, 8 * GIB)
    groups.write("box", **{**v2(GIB, 0, 0), "memory__stat": "three words here"})
    assert free_ram() == Ram(4 * GIB, 8 * GIB)


CHILD = """
import json, mmap, sys
from llamalite.models.fit.machine import free_ram
with open(sys.argv[1], "rb") as file:
    while file.read(1 << 20):
        pass
before = free_ram()
held = bytearray(64 << 20)
print(json.dumps([before, free_ram()]))
"""


@contextlib.contextmanager
def real_group(n_bytes: int) -> Iterator[Path]:
    """A control group of the kernel's with a limit, or a skip where none can be made."""
    bases = [Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")]
    base = next((path for path in bases if (path / "cgroup.procs").exists()), None)
    if base is None:
        pytest.skip("this system has no control groups")
    group = base / f"llamalite-test-{os.getpid()}"
    name = "memory.limit_in_bytes" if base == bases[0] else "memory.max"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here ({error.strerror})")
    try:
        (group / name).write_text(str(n_bytes))
        yield group
    except (PermissionError, FileNotFoundError) as error:
        pytest.skip(f"no control group can be limited here ({error.strerror})")
    finally:
        group.rmdir()


def test_a_real_control_group_limits(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_bytes(bytes(48 << 20))
    with open(model, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with real_group(200 << 20) as group:
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(model)],
            preexec_fn=lambda: (group / "cgroup.procs").write_text("0") and None,
            capture_output=True,
            text=True,
            check=True,
        )
    before, after = (Ram(*said) for said in json.loads(done.stdout))
    assert before.total_bytes == 200 << 20
    assert before.limit.endswith(str(group))
    # The file, read whole, lies in the cache and takes nothing away; the held bytes do.
    assert before.free_bytes is not None
    assert after.free_bytes is not None
    assert before.free_bytes > 160 << 20
    assert before.free_bytes - after.free_bytes == pytest.approx(64 << 20, rel=0.1)


def device(name: str, kind: str, free: int = GIB) -> TrialDevice:
    return TrialDevice(name, "", kind, free, 2 * GIB)


def test_devices_are_those_libllama_offloads_to() -> None:
    cpu, gpu, other = device("CPU", "CPU"), device("CUDA0", "GPU"), device("CUDA1", "GPU")
    integrated = device("Vulkan1", "IGPU")
    found = machine.usable_devices([cpu, gpu, integrated, other])
    assert [found.name for found in found] == ["CUDA0", "CUDA1"]
    assert machine.usable_devices([cpu, integrated]) == (
        DeviceMemory("Vulkan1", GIB, 2 * GIB, shares_ram=True),
    )
    assert machine.usable_devices([cpu]) == ()


def test_on_apples_processors_the_gpu_has_no_memory_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("", "", "", "", "arm64")))
    assert machine.usable_devices([device("Metal", "GPU")])[0].shares_ram


def test_without_a_library_ram_alone_is_looked_at_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LLAMALITE_LIB", raising=False)
    assert "no libllama is installed" in machine.this_machine().note
    monkeypatch.setenv("LLAMALITE_LIB", "/nowhere")
    found = machine.this_machine()
    assert found.devices == ()
    assert "RAM alone is looked at, because libllama can't be used: LLAMALITE_LIB" in found.note


def test_a_remembered_gpu_is_asked_anew_and_else_taken_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Known:
        devices = (device("CPU", "CPU"), device("CUDA0", "GPU"))
        remedies = None

    def fail(*_args: object, **_kwargs: object) -> None:
        raise LibraryIncompatible("no driver")

    monkeypatch.setattr("llamalite.libs.find.find_library", lambda _say: object())
    monkeypatch.setattr("llamalite.core.trial.known_trial", lambda _files: Known())
    monkeypatch.setattr("llamalite.ffi.library.open_library", fail)
    remembered = (DeviceMemory("CUDA0", GIB, 2 * GIB),)
    assert machine.this_machine(ask_devices=False)._replace(ram=Ram(0, 0)) == Machine(
        Ram(0, 0), remembered
    )
    asked = machine.this_machine()
    assert asked.devices == remembered
    assert asked.note.endswith("it can't be asked now: no driver")
    free = free_ram().free_bytes
    assert free is not None
    assert free_memory() == pytest.approx(free + GIB, rel=0.05)
