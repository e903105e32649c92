"""Which kernels ONNX Runtime runs for an artifact, and how long each takes. No torch here."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from export.artifact import Artifact
from export.runtimes.ort import cpu_session
from models.preprocess import Pixels

_KERNEL = "_kernel_time"
_WARMUP = 10


@dataclass(frozen=True, slots=True)
class Kernel:
    """A node of the graph as ONNX Runtime optimised it for this machine.

    Attributes:
        name: of the node; ONNX Runtime makes it from that of a layer, unless it added the node.
        op: its operator, such as ``FusedConv`` or ``ReorderInput``.
        seconds: of a run, the mean of the middle half: whole microseconds have too few digits for
            a median, and a mean of all has what the machine did meanwhile in it.
    """

    name: str
    op: str
    seconds: float


def profile(artifact: Artifact, pixels: Pixels, *, threads: int, runs: int) -> list[Kernel]:
    """Returns the kernels of one call on the CPU, in the order they run.

    Args:
        artifact: an ONNX one.
        pixels: uint8 (n, H, W, 3), what every call is given.
        threads: CPU threads inside a call.
        runs: calls that are looked at, after ten that are not.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = cpu_session(artifact, threads=threads, profile=Path(folder) / "profile")
        for _ in range(_WARMUP + runs):
            session.run(None, {artifact.input.name: pixels})
        events = json.loads(Path(session.end_profiling()).read_text())
    return kernels(events, skip=_WARMUP)


def kernels(events: list[dict[str, Any]], *, skip: int) -> list[Kernel]:
    """Returns the kernels of a profile, in the order of its first run.

    Args:
        events: of ONNX Runtime's profile; durations are whole microseconds.
        skip: runs at the start that do not count.
    """
    durations: dict[tuple[str, str, str], list[int]] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(_KERNEL):
            node = event["args"]["node_index"], event["name"], event["args"]["op_name"]
            durations.setdefault(node, []).append(event["dur"])
    return [
        Kernel(name.removesuffix(_KERNEL), op, _middle_mean(times[skip:]) / 1e6)
        for (_, name, op), times in durations.items()
    ]


def _middle_mean(values: list[int]) -> float:
    quarter = len(values) // 4
    return mean(sorted(values)[quarter : len(values) - quarter])
