"""``python -m predict``."""

from __future__ import annotations

import tyro

from core import cli
from predict.command import Predict


def main() -> int:
    """Runs the command line and returns its exit status."""
    return tyro.cli(Predict, prog=cli.program("predict"))()


if __name__ == "__main__":
    cli.run(main)
