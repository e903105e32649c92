"""``pocketnets bench`` for this machine, with ``device`` for a phone, ``peers`` beside others."""

from __future__ import annotations

import sys
from typing import Any

from core.lazy import resolve

_OTHERS = {"device": "bench.device.command:Device", "peers": "bench.peers.command:Peers"}


def main() -> int | None:
    """Does what the command line asks for, and returns its exit status."""
    import tyro

    command: Any
    if (name := next(iter(sys.argv[1:2]), "")) in _OTHERS:
        command = resolve(_OTHERS[name])
        sys.argv[:2] = [f"{sys.argv[0]} {name}"]  # what usage and errors call it
    else:
        command = resolve("bench.latency.command:Run")
    return tyro.cli(command, prog=sys.argv[0])()  # type: ignore[no-any-return]
