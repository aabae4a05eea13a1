"""How many threads this process may usefully run.

Owns the reading of cores, affinity and CPU quotas. Doesn't know what the threads compute. Imports
psutil and the standard library.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MOST_THREADS = 512


def default_n_threads(root: Path = Path("/")) -> int:
    """Return the number of physical cores this process may use, at least 1.

    ggml's threads spin while they wait, so hyper-threads, cores that belong to others and time
    beyond a quota only slow it down.

    Args:
        root: where /proc and /sys are looked up.
    """
    allowed = allowed_cpus()
    n_threads = _n_cores(allowed, root)
    quota = cpu_quota(root)
    if quota is not None:
        n_threads = min(n_threads, math.ceil(quota))
    return max(1, min(n_threads, _MOST_THREADS))


def allowed_cpus() -> list[int] | None:
    """Return the numbers of the logical CPUs this process may run on; None where unknown."""
    import psutil

    try:
        if hasattr(os, "sched_getaffinity"):
            return sorted(os.sched_getaffinity(0)) or None
        if hasattr(psutil.Process, "cpu_affinity"):
            return sorted(psutil.Process().cpu_affinity() or ()) or None
    except (OSError, psutil.Error):
        pass
    return None


def idle_cpu_s() -> float | None:
    """Return the seconds this process's CPUs have been idle since boot, summed; None if unknown."""
    import psutil

    try:
        each = psutil.cpu_times(percpu=True)
    except (OSError, RuntimeError, psutil.Error):
        return None
    allowed = allowed_cpus()
    if allowed and max(allowed) < len(each):
        each = [each[cpu] for cpu in allowed]
    counted = ["idle", "iowait"]
    if hasattr(os, "nice") and os.nice(0) <= 0:
        counted.append("nice")  # niced work gives way to this process, unless that is niced too
    idle_s = sum(float(getattr(times, name, 0.0)) for times in each for name in counted)
    return idle_s or None  # some sandboxes report zeros


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return how many CPUs' time this process's control groups grant it; None for no limit.

    The smallest limit from its own group up to the outermost visible one counts, in both versions
    of the hierarchy.

    Args:
        root: where /proc and /sys are looked up.
    """
    quotas = []
    for folder in _cgroup_folders(root):
        quota = _quota_v2(folder) if (folder / "cpu.max").exists() else _quota_v1(folder)
        if quota is not None:
            quotas.append(quota)
    return min(quotas, default=None)


def _n_cores(allowed: list[int] | None, root: Path) -> int:
    import psutil

    logical = len(allowed) if allowed else os.cpu_count() or 1
    cores = {_siblings(cpu, root) for cpu in allowed or ()}
    if cores and None not in cores:
        return len(cores)
    return min(logical, psutil.cpu_count(logical=False) or logical)


def _siblings(cpu: int, root: Path) -> str | None:
    """Return the list of CPUs that share a core with this one, as the kernel writes it."""
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    names = ("core_cpus_list", "thread_siblings_list")  # the second until Linux 5.3
    return next(filter(None, (_text(topology / name) for name in names)), None)


def _cgroup_folders(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's groups that may limit CPU time, inner ones first."""
    groups = _own_groups(root)
    for kind, mounted, at in _cgroup_mounts(root):
        if kind not in groups:
            continue
        group, top = PurePosixPath(groups[kind]), PurePosixPath(mounted)
        # NOTE: a path from outside the namespace names nothing here; what is mounted is ours then.
        inner = group.relative_to(top) if group.is_relative_to(top) else PurePosixPath()
        if ".." in inner.parts or not (at / inner).is_dir():
            inner = PurePosixPath()
        yield from (at / part for part in (inner, *inner.parents))


def _own_groups(root: Path) -> dict[str, str]:
    """Return this process's group in each version of the hierarchy, by filesystem type."""
    groups = {}
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, found, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if found and (not controllers or "cpu" in controllers.split(",")):
            groups["cgroup" if controllers else "cgroup2"] = path
    return groups


def _cgroup_mounts(root: Path) -> Iterator[tuple[str, str, Path]]:
    """Yield kind, path inside the hierarchy and mount point of each mount that may hold limits."""
    for line in (_text(root / "proc/self/mountinfo") or "").splitlines():
        mount, _, filesystem = line.partition(" - ")
        fields, kinds = mount.split(), filesystem.split()
        if len(fields) < 5 or len(kinds) < 3:
            continue
        if kinds[0] == "cgroup2" or (kinds[0] == "cgroup" and "cpu" in kinds[2].split(",")):
            inside, at = (_unescaped(field) for field in fields[3:5])
            yield kinds[0], inside, root / at.lstrip("/")


def _unescaped(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _quota_v2(folder: Path) -> float | None:
    quota, _, period = (_text(folder / "cpu.max") or "").partition(" ")
    return _share(quota, period or "100000")


def _quota_v1(folder: Path) -> float | None:
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    quota, period = (_text(folder / name) or "" for name in names)
    return _share(quota, period)


def _share(quota: str, period: str) -> float | None:
    if not (quota.isdecimal() and period.isdecimal()) or not int(quota) or not int(period):
        return None  # "max", -1 or unreadable: no limit
    return int(quota) / int(period)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
