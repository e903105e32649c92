"""Reads a container's CPU and memory limits from control groups, versions 1 and 2."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")
_UNLIMITED = 1 << 60  # version 1 writes a number near 2**63 where there is no limit


def cpu_quota(root: Path = _ROOT) -> float | None:
    """Returns this process's limit of CPU time in cores, such as 1.5; None without a limit.

    Args:
        root: the root of the file system; tests use another one.

    The limit of a group applies to the groups inside it, so the smallest one counts.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst (``cpu.max``) and
    scheduler/sched-bwc.rst (``cpu.cfs_quota_us``, ``cpu.cfs_period_us``).
    """
    quotas = []
    for folder in _groups(root, "cpu"):
        one = _words(folder / "cpu.max")
        two = _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        for quota, period in (words for words in (one, two) if len(words) == 2):
            if quota not in ("max", "-1"):
                quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory_limit(root: Path = _ROOT) -> int | None:
    """Returns this process's memory limit in bytes; None without a limit."""
    limits = []
    for folder in _groups(root, "memory"):
        for word in _words(folder / "memory.max") + _words(folder / "memory.limit_in_bytes"):
            if word != "max" and int(word) < _UNLIMITED:
                limits.append(int(word))
    return min(limits, default=None)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yields the folders of this process's groups, each followed by its parent groups."""
    lines = _lines(root / "proc/self/cgroup")  # hierarchy:controllers:path
    paths = {kinds: path for _, kinds, path in (line.split(":", 2) for line in lines)}
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        mounted, point = map(_unescaped, before.split(" ")[3:5])
        if kind == "cgroup2":
            path = paths.get("")
        elif kind == "cgroup" and controller in options.split(","):
            path = next((p for kinds, p in paths.items() if controller in kinds.split(",")), None)
        else:
            continue
        if path is None:
            continue
        # A container may see only a subtree, while its own path is given from the root of the tree.
        inside = path.removeprefix(mounted) if mounted != "/" else path
        top = root / point.lstrip("/")
        folder = top / inside.lstrip("/")
        while folder != top:
            yield folder
            folder = folder.parent
        yield top


def _unescaped(path: str) -> str:
    return re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), path)


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []


def _words(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").split() if file.is_file() else []
