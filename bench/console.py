"""``pocketnets bench`` for this machine, ``pocketnets bench device`` for a phone."""

from __future__ import annotations

import sys
from typing import Any

from core.lazy import resolve


def main() -> int | None:
    """Does what the command line asks for, and returns its exit status."""
    import tyro

    command: Any
    if sys.argv[1:2] == ["device"]:
        command = resolve("bench.device.command:Device")
        sys.argv[:2] = [f"{sys.argv[0]} device"]  # what usage and errors call it
    else:
        command = resolve("bench.latency.command:Run")
    return tyro.cli(command, prog=sys.argv[0])()  # type: ignore[no-any-return]
