"""Default thread counts from made-up machines: cores, affinity and quotas in every form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from llamalite.engine import threads
from llamalite.engine.threads import cpu_quota, default_n_threads, idle_cpu_s

Allow = Callable[[list[int] | None], None]

V1_MOUNT = "30 25 0:26 {inside} {at} rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct"
V2_MOUNT = "31 25 0:27 {inside} {at} rw,relatime - cgroup2 cgroup2 rw"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def v2(root: Path, group: str, limits: dict[str, str], *, inside: str = "/") -> None:
    write(
        root,
        {
            "proc/self/cgroup": f"0::{group}",
            "proc/self/mountinfo": V2_MOUNT.format(inside=inside, at="/sys/fs/cgroup"),
            **{f"sys/fs/cgroup/{name}/cpu.max": limit for name, limit in limits.items()},
        },
    )


def v1(root: Path, group: str, limits: dict[str, tuple[int, int]], *, inside: str = "/") -> None:
    at = "/sys/fs/cgroup/cpu,cpuacct"
    files = {
        "proc/self/cgroup": f"5:memory:/elsewhere\n4:cpu,cpuacct:{group}\n0::/init.scope",
        "proc/self/mountinfo": V1_MOUNT.format(inside=inside, at=at),
    }
    for name, (quota, period) in limits.items():
        files[f"{at[1:]}/{name}/cpu.cfs_quota_us"] = str(quota)
        files[f"{at[1:]}/{name}/cpu.cfs_period_us"] = str(period)
    write(root, files)


def cores(root: Path, siblings: dict[int, str], name: str = "core_cpus_list") -> None:
    for cpu, cpus in siblings.items():
        write(root, {f"sys/devices/system/cpu/cpu{cpu}/topology/{name}": cpus})


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch) -> Allow:
    def allow(cpus: list[int] | None) -> None:
        monkeypatch.setattr(threads, "allowed_cpus", lambda: cpus)

    return allow


def test_this_machine() -> None:
    allowed = threads.allowed_cpus()
    assert 1 <= default_n_threads() <= (len(allowed) if allowed else 512)
    first = idle_cpu_s()
    assert first is None or first <= (idle_cpu_s() or 0)


@pytest.mark.parametrize("name", ["core_cpus_list", "thread_siblings_list"])
def test_hyperthreads_count_once_and_only_allowed_ones_count(
    tmp_path: Path, allow: Allow, name: str
) -> None:
    cores(tmp_path, {cpu: f"{cpu % 4},{cpu % 4 + 4}" for cpu in range(8)}, name)
    for cpus, expected in (
        (list(range(8)), 4),
        ([0, 4], 1),
        ([1, 2, 5], 2),
        ([0, 1, 2, 3], 4),
    ):
        allow(cpus)
        assert default_n_threads(tmp_path) == expected


def test_without_a_topology_the_smaller_of_cores_and_affinity_counts(
    tmp_path: Path, allow: Allow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 16 if logical else 8)
    for cpus, expected in ((list(range(16)), 8), ([0, 1, 2], 3)):
        allow(cpus)
        assert default_n_threads(tmp_path) == expected
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: None)
    allow([0, 1, 2])
    assert default_n_threads(tmp_path) == 3


def test_where_affinity_is_unknown_all_cores_count(
    tmp_path: Path, allow: Allow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 4)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    allow(None)
    assert default_n_threads(tmp_path) == 4


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("1000 100000", 1),
        ("50000 10000", 5),
        ("300000", 3),
        ("9900000 100000", 8),
        ("nonsense 100000", 8),
        ("200000 0", 8),
        ("", 8),
    ],
)
def test_a_quota_is_rounded_up(tmp_path: Path, allow: Allow, limit: str, expected: int) -> None:
    allow(list(range(8)))
    cores(tmp_path, {cpu: str(cpu) for cpu in range(8)})
    v2(tmp_path, "/a", {"a": limit})
    assert default_n_threads(tmp_path) == expected


def test_v2_the_tightest_group_of_the_nest_counts(tmp_path: Path) -> None:
    v2(tmp_path, "/a/b/c", {"a": "200000 100000", "a/b": "max 100000", "a/b/c": "400000 100000"})
    assert cpu_quota(tmp_path) == 2
    v2(tmp_path, "/a/b/c", {"a/b/c": "50000 100000", "a/other": "1 100000"})
    assert cpu_quota(tmp_path) == 0.5


def test_v1_the_tightest_group_of_the_nest_counts(tmp_path: Path) -> None:
    v1(tmp_path, "/k/pod", {"": (-1, 100000), "k": (600000, 100000), "k/pod": (250000, 100000)})
    assert cpu_quota(tmp_path) == 2.5
    v1(tmp_path, "/k/pod", {"k": (100000, 100000)})
    assert cpu_quota(tmp_path) == 1


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    v2(tmp_path, "/", {"": "300000 100000"})
    assert cpu_quota(tmp_path) == 3


def test_a_container_with_the_hosts_paths(tmp_path: Path) -> None:
    v1(tmp_path / "a", "/docker/x", {"": (200000, 100000)}, inside="/docker/x")
    assert cpu_quota(tmp_path / "a") == 2
    group, inside = "/docker/x/inner", "/docker/x"
    v1(tmp_path / "b", group, {"inner": (100000, 100000)}, inside=inside)
    assert cpu_quota(tmp_path / "b") == 1


@pytest.mark.parametrize("group", ["/../../other", "/gone/elsewhere"])
def test_a_group_outside_the_namespace_falls_back_to_what_is_mounted(
    tmp_path: Path, group: str
) -> None:
    v2(tmp_path, group, {"": "200000 100000", "other": "100000 100000"})
    assert cpu_quota(tmp_path) == 2


def test_mount_points_with_blanks(tmp_path: Path) -> None:
    mount = V2_MOUNT.format(inside="/", at="/mnt/c\\040g")
    write(tmp_path, {"proc/self/cgroup": "0::/", "proc/self/mountinfo": mount})
    write(tmp_path, {"mnt/c g/cpu.max": "200000 100000"})
    assert cpu_quota(tmp_path) == 2


@pytest.mark.parametrize("text", ["", "what\n", "a:b\n", "0::/\nx"])
def test_unreadable_files_mean_no_limit(tmp_path: Path, text: str) -> None:
    assert cpu_quota(tmp_path) is None
    write(tmp_path, {"proc/self/cgroup": text, "proc/self/mountinfo": text + "\n1 2 - cgroup2"})
    assert cpu_quota(tmp_path) is None


def test_idle_time_is_that_of_the_allowed_cpus(
    allow: Allow, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Times:
        def __init__(self, idle: float) -> None:
            self.idle = idle

    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [Times(1), Times(20), Times(300)])
    for cpus, expected in (([0, 2], 301), (None, 321), ([1, 9], 321)):
        allow(cpus)
        assert idle_cpu_s() == expected
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [Times(0)])
    assert idle_cpu_s() is None
