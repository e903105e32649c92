"""The properties of the machine of a report, and its state before and after."""

from __future__ import annotations

from core.conditions import Conditions
from core.machine import Machine


def machine_facts(machine: Machine, before: Conditions, after: Conditions) -> list[tuple[str, str]]:
    """Returns the properties of a machine, and its state before and after, as (name, value)."""
    memory = "unknown" if machine.memory is None else f"{machine.memory / 2**30:.1f} GiB"
    gpu = f"{machine.gpu}, driver {machine.driver}" if machine.gpu else "none found"
    return [
        ("Processor", f"{machine.cpu}, {machine.cores} usable cores"),
        ("Memory", memory),
        ("GPU", gpu),
        ("System", f"{machine.os}, kernel {machine.kernel}"),
        ("Frequency governor", machine.governor or "not shown by the system"),
        ("Load average before and after", f"{_load(before)}; {_load(after)}"),
        ("Clock before and after", f"{_clock(before)}; {_clock(after)}"),
        ("Versions", ", ".join(f"{name} {value}" for name, value in machine.versions.items())),
    ]


def _load(state: Conditions) -> str:
    load = state.load_average
    return "unknown" if load is None else " / ".join(f"{x:.2f}" for x in load)


def _clock(state: Conditions) -> str:
    clocks = [
        f"{kind} {mhz:,.0f} MHz"
        for kind, mhz in (("CPU", state.cpu_mhz), ("GPU", state.gpu_mhz))
        if mhz is not None
    ]
    return ", ".join(clocks) or "not shown by the system"
