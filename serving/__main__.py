"""``python -m serving``."""

from __future__ import annotations

from core import cli
from serving.command import main

if __name__ == "__main__":
    cli.run(main)
