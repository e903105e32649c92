"""``python -m serving``, and ``pocketnets serve``.

A service reloads on SIGHUP. One that comes during its imports must not end it, so they come later.
"""

from __future__ import annotations

from core import cli
from core.lazy import resolve


@cli.hangups_ignored()
def main() -> int:
    """Runs the server and returns its exit status."""
    status: int = resolve("serving.command:serve")()
    return status


if __name__ == "__main__":
    cli.run(main)
