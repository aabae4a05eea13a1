"""How much memory this machine has free: RAM, within the limits set to this process, and devices.

Owns where that is read. Doesn't know models. Imports the standard library and `llamalite.errors`;
`core`, `ffi`, `libs` and psutil inside the functions that need them.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from llamalite.errors import LibraryError

if TYPE_CHECKING:
    from llamalite.core.trial import TrialDevice
    from llamalite.ffi.library import Device, Library

_PROC = Path("/proc")
_ESCAPE = re.compile(r"\\([0-7]{3})")


class Ram(NamedTuple):
    """Memory that a process can still fill.

    The page cache counts as free, since the system gives it up: a model's file that lies in it is
    what a mapped model needs anyway.

    Attributes:
        free_bytes: None where the system doesn't say.
        total_bytes: 0 where the system doesn't say.
        limit: what sets the limit for people, or "" where the machine itself does.
    """

    free_bytes: int | None
    total_bytes: int
    limit: str = ""


class DeviceMemory(NamedTuple):
    """A device that layers can be offloaded to.

    Attributes:
        shares_ram: its memory is the machine's, so that what lies there is missing in RAM.
    """

    name: str
    free_bytes: int
    total_bytes: int
    shares_ram: bool = False


class Machine(NamedTuple):
    """What there is.

    Attributes:
        devices: those that libllama offloads to, in its order.
        note: what isn't known of devices, and why; "" where all is.
    """

    ram: Ram
    devices: tuple[DeviceMemory, ...] = ()
    note: str = ""


def this_machine(library: Library | None = None, *, ask_devices: bool = True) -> Machine:
    """Return what this machine has free now.

    Args:
        library: the opened libllama, which knows the devices; None = the one that would be used.
        ask_devices: open that one if it is known to see a GPU, since it alone can tell what is
            free there; otherwise that is what was free when it was tested.
    """
    if library is not None:
        return Machine(free_ram(), usable_devices(library.devices()))
    devices, note = _devices(ask_devices)
    return Machine(free_ram(), devices, note)


def free_memory() -> int | None:
    """Return the memory that a model's weights may take here, RAM and devices together.

    None where the system doesn't say.
    """
    machine = this_machine(ask_devices=False)
    if machine.ram.free_bytes is None:
        return None
    own = sum(device.free_bytes for device in machine.devices if not device.shares_ram)
    return machine.ram.free_bytes + own


def free_ram() -> Ram:
    """Return the RAM that is free for this process now."""
    ram = _whole_ram()
    for limit in _cgroup_limits(_PROC / "self"):
        if ram.free_bytes is None or limit.free_bytes < ram.free_bytes:
            total = min(limit.total_bytes, ram.total_bytes or limit.total_bytes)
            ram = Ram(
                limit.free_bytes, total, f"the memory limit of the control group {limit.name}"
            )
    return ram


def usable_devices(devices: Iterable[Device | TrialDevice]) -> tuple[DeviceMemory, ...]:
    """Return those that libllama offloads to: all GPUs, or the integrated one where there is none.

    Source: llama.cpp `llama_model_load_from_file_impl`.
    """
    kinds: dict[str, list[DeviceMemory]] = {"GPU": [], "IGPU": []}
    is_apple = sys.platform == "darwin" and os.uname().machine == "arm64"
    for device in devices:
        kind = getattr(device.kind, "name", device.kind)
        if kind in kinds:
            shares = is_apple or kind == "IGPU"
            kinds[kind].append(
                DeviceMemory(device.name, device.free_bytes, device.total_bytes, shares)
            )
    return tuple(kinds["GPU"] or kinds["IGPU"])


def _devices(ask: bool) -> tuple[tuple[DeviceMemory, ...], str]:
    """Return the devices that the libllama in use offers, and what to say about them."""
    from llamalite.core.trial import known_trial
    from llamalite.libs.find import find_library

    try:
        files = find_library(lambda _line: None)
    except LibraryError as error:
        return (), f"RAM alone is looked at, because libllama can't be used: {error}"
    if files is None:
        return (), (
            "RAM alone is looked at, because no libllama is installed that could name a GPU "
            "('llamalite lib install' fetches one)"
        )
    trial = known_trial(files)
    if trial is None:
        return (), (
            f"RAM alone is looked at, because the libllama in {files.folder} was not tested here "
            f"yet ('llamalite doctor' does)"
        )
    remembered = usable_devices(trial.devices)
    if not remembered or not ask:
        return remembered, ""
    from llamalite.ffi.library import open_library

    try:
        return usable_devices(open_library(files, remedies=trial.remedies).devices()), ""
    except LibraryError as error:
        return remembered, (
            f"devices are taken to have free what they had when libllama was tested, because it "
            f"can't be asked now: {error}"
        )


def _whole_ram() -> Ram:
    # PERF: importing psutil takes longer than all the rest of a header's reading.
    with contextlib.suppress(OSError, LookupError, ValueError):
        lines = (_PROC / "meminfo").read_text(encoding="ascii").splitlines()
        sizes = {
            name: int(rest.split()[0]) << 10 for name, _, rest in (x.partition(":") for x in lines)
        }
        return Ram(sizes["MemAvailable"], sizes["MemTotal"])
    try:
        import psutil

        memory = psutil.virtual_memory()
    except Exception:  # psutil's own, and what it lets through where /proc isn't what it expects
        return Ram(None, 0)
    return Ram(memory.available, memory.total)


class _Limit(NamedTuple):
    """A control group's limit; `free_bytes` is what its processes may still fill."""

    name: str
    free_bytes: int
    total_bytes: int


def _cgroup_limits(proc: Path) -> Iterator[_Limit]:
    """Yield the limits on this process, its own groups' and those of the groups around them.

    Args:
        proc: the process's folder under /proc.

    Source: Linux, admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
    """
    try:
        groups = (proc / "cgroup").read_text(encoding="utf-8").splitlines()
        mounts = (proc / "mountinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return  # another system, or no /proc
    for line in groups:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        is_v2 = number == "0" and not controllers
        if not is_v2 and "memory" not in controllers.split(","):
            continue
        for root, mounted in _mounts(mounts, is_v2):
            # Outside of what is mounted here, the mounted folder is the nearest that can be seen.
            below = PurePosixPath(path)
            inside = below.relative_to(root) if below.is_relative_to(root) else PurePosixPath()
            folder = mounted / inside if ".." not in inside.parts else mounted
            for group in (folder, *folder.parents):
                limit = _limit_of(group, is_v2)
                if limit is not None:
                    yield limit
                if group == mounted:
                    break


def _mounts(lines: list[str], is_v2: bool) -> Iterator[tuple[PurePosixPath, Path]]:
    """Yield which group is mounted where."""
    for line in lines:
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        is_memory = kind[0] == "cgroup2" if is_v2 else "memory" in kind[2].split(",")
        if is_memory and kind[0].startswith("cgroup"):
            yield PurePosixPath(_unescaped(fields[3])), Path(_unescaped(fields[4]))


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)


def _limit_of(group: Path, is_v2: bool) -> _Limit | None:
    """Return a group's limit, or None where it has none or can't be read."""
    limits = ("memory.max", "memory.high") if is_v2 else ("memory.limit_in_bytes",)
    usage = "memory.current" if is_v2 else "memory.usage_in_bytes"
    prefix = "" if is_v2 else "total_"
    try:
        most = [int(text) for name in limits if (text := _word(group / name)) != "max"]
        used = int(_word(group / usage))
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
        counts = {name: int(value) for name, value in map(str.split, lines)}
    except (OSError, ValueError):
        return None
    if not most:
        return None
    caches = (f"{prefix}active_file", f"{prefix}inactive_file", "slab_reclaimable")
    kept = max(used - sum(counts.get(name, 0) for name in caches), 0)
    return _Limit(str(group), max(min(most) - kept, 0), min(most))


def _word(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()
