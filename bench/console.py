"""``pocketnets bench`` for this machine, with ``device`` for a phone, ``peers`` beside others."""

from __future__ import annotations

import sys
from typing import Any

from core.errors import UserError
from core.lazy import resolve

_RUN = "bench.latency.command:Run"
_COMMANDS = {
    "run": _RUN,  # as python -m bench calls it
    "device": "bench.device.command:Device",
    "peers": "bench.peers.command:Peers",
}


def main() -> int | None:
    """Does what the command line asks for, and returns its exit status."""
    import tyro

    command: Any
    if (name := next(iter(sys.argv[1:2]), "-")) in _COMMANDS:
        command = resolve(_COMMANDS[name])
        sys.argv[:2] = [f"{sys.argv[0]} {name}"]  # what usage and errors call it
    elif name.startswith("-"):
        command = resolve(_RUN)
    else:
        raise UserError(
            f"{sys.argv[0]} has no {name!r}: it has {', '.join(_COMMANDS)} and flags of run; "
            "python -m bench --help lists more"
        )
    return tyro.cli(command, prog=sys.argv[0])()  # type: ignore[no-any-return]
