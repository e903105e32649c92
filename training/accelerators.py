"""The devices of a run, as its flags name them; without torch, which takes seconds to import."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Accelerators:
    """The devices of a run."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """auto: GPUs if there are any."""
    devices: int = 0
    """Number of processes on this host, one per GPU; 0: all GPUs, or one process on a CPU. Under
    torchrun: the number that it started."""
    nodes: int = 1
    """Number of hosts; start the same command on each with torchrun."""


def is_first_process() -> bool:
    """Returns whether this is the process of the run that writes files and messages.

    It is read from the environment, as it is needed before Lightning is set up.
    """
    return all(int(os.environ.get(name, 0)) == 0 for name in ("RANK", "LOCAL_RANK", "NODE_RANK"))
