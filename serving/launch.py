"""``python -m serving.launch``: all is taken from the environment, as in a container."""

from __future__ import annotations

from core import cli
from core.lazy import resolve


@cli.hangups_ignored()
def main() -> int:
    """Serves what the environment says; returns the exit status."""
    status: int = resolve("serving.starting:from_environment")()
    return status


if __name__ == "__main__":
    cli.run(main)
