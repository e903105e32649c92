"""The machine that rows are measured on."""

from __future__ import annotations

from artifact.runtimes.base import runtime_packages
from core import machine


def this_machine() -> machine.Machine:
    """Returns this machine, with the version of whatever a runtime computes with."""
    return machine.this_machine(runtime_packages())
