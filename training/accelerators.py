"""The devices of a run, as its flags name them; without torch, which takes seconds to import."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, get_args

from core.errors import UserError, unknown

AcceleratorName = Literal["auto", "cpu", "gpu"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Accelerators:
    """The devices of a run."""

    accelerator: AcceleratorName = "auto"
    """auto: GPUs if there are any."""
    devices: int = 0
    """Number of processes on this host, one per GPU; 0: all GPUs, or one process on a CPU. Under
    torchrun: the number that it started."""
    nodes: int = 1
    """Number of hosts; start the same command on each with torchrun."""

    def __post_init__(self) -> None:
        """Raises UserError if the accelerator is unknown, or a number out of range."""
        if self.accelerator not in get_args(AcceleratorName):
            raise unknown("accelerator", self.accelerator, get_args(AcceleratorName))
        if self.devices < 0:
            raise UserError(
                f"--machine.devices {self.devices}: it must be at least 0; 0 takes all GPUs, or "
                "the CPU"
            )
        if self.nodes < 1:
            raise UserError(f"--machine.nodes {self.nodes}: it must be at least 1")


def is_first_process() -> bool:
    """Returns whether this is the process of the run that writes files and messages.

    It is read from the environment, as it is needed before Lightning is set up.
    """
    return all(int(os.environ.get(name, 0)) == 0 for name in ("RANK", "LOCAL_RANK", "NODE_RANK"))
