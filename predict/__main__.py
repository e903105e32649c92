"""``python -m predict``."""

from __future__ import annotations

import tyro

from core import cli
from predict.command import Predict


def main() -> int:
    """Returns the exit status of what the command line asks for."""
    return tyro.cli(Predict, prog=cli.program("predict"))()


if __name__ == "__main__":
    cli.run(main)
