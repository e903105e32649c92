"""The limits of a container, from files as the kernel writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.cgroups import cpu_quota, memory_limit
from core.cores import usable_cores

V2 = "31 23 0:28 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "36 31 0:33 {root} /sys/fs/cgroup/memory rw shared:13 - cgroup cgroup rw,memory\n"
)


def system(root: Path, mounts: str, groups: str, **files: str) -> Path:
    """Returns ``root`` with these files below sys/fs/cgroup; __ stands for / in their names."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(f"23 1 0:20 / / rw - ext4 /dev/sda1 rw\n{mounts}")
    (root / "proc/self/cgroup").write_text(groups)
    for name, content in files.items():
        file = root / "sys/fs/cgroup" / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


def test_a_container_of_version_2_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    files = {"cpu.max": "150000 100000\n", "memory.max": "1073741824\n"}
    root = system(tmp_path, V2.format(root="/"), "0::/\n", **files)
    assert cpu_quota(root) == 1.5
    assert memory_limit(root) == 1 << 30


def test_the_tightest_of_the_groups_around_counts(tmp_path: Path) -> None:
    files = {
        "work.slice__job__cpu.max": "max 100000\n",
        "work.slice__cpu.max": "50000 25000\n",
        "cpu.max": "400000 100000\n",
        "work.slice__job__memory.max": "max\n",
    }
    root = system(tmp_path, V2.format(root="/"), "0::/work.slice/job\n", **files)
    assert cpu_quota(root) == 2
    assert memory_limit(root) is None


def test_version_1_in_a_container_and_outside(tmp_path: Path) -> None:
    groups = "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n"
    own = {
        "cpu,cpuacct__cpu.cfs_quota_us": "300000\n",
        "cpu,cpuacct__cpu.cfs_period_us": "100000\n",
        "memory__memory.limit_in_bytes": "536870912\n",
    }
    inside = system(tmp_path / "inside", V1.format(root="/docker/abc"), groups, **own)
    assert cpu_quota(inside) == 3
    assert memory_limit(inside) == 512 << 20
    whole = {name.replace("__", "__docker/abc/"): text for name, text in own.items()}
    free = {name: "-1\n" if "quota" in name else f"{2**63 - 4096}\n" for name in own}
    outside = system(tmp_path / "outside", V1.format(root="/"), groups, **free, **whole)
    assert cpu_quota(outside) == 3
    assert memory_limit(outside) == 512 << 20


def test_no_limit(tmp_path: Path) -> None:
    groups = "4:memory:/\n2:cpu,cpuacct:/\n"
    files = {
        "cpu,cpuacct__cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct__cpu.cfs_period_us": "100000\n",
        "memory__memory.limit_in_bytes": "9223372036854771712\n",
    }
    root = system(tmp_path / "one", V1.format(root="/"), groups, **files)
    assert (cpu_quota(root), memory_limit(root)) == (None, None)
    two = system(tmp_path / "two", V2.format(root="/"), "0::/\n")  # a root group has no limits
    assert (cpu_quota(two), memory_limit(two)) == (None, None)
    assert cpu_quota(tmp_path / "not Linux") is None


@pytest.mark.parametrize(("quota", "cores"), [(None, 8), (0.5, 1), (3.9, 3), (64.0, 8)])
def test_usable_cores_are_the_whole_ones_of_the_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr("core.cores.cpu_quota", lambda: quota)
    assert usable_cores() == cores
