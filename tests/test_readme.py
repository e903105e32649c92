"""Runs the commands of the pages' tables as they are written, in a copy of it all."""

from __future__ import annotations

from pathlib import Path

import pytest
from house import run
from pages import TABLED

# Appended to a command to make it short; what is asked of the house stays the same.
SHORTER = {
    "make train": 'ARGS="--recipe.epochs 1 --recipe.resize 32 --recipe.crop 32"',
    "make export MODEL=mobilenet_v3 DATA": "ARGS='--formats onnx-fp32 onnx-fp16'",  # for bench
    "make export": "ARGS='--formats onnx-fp32 --size 64'",
    "make bench": "ARGS=--quick",
}

# Those of tests/test_demo.py, and one that needs a GPU.
ELSEWHERE = ("make demo", "make serve", "make load", "make gpu-check")


def test_make_alone_lists_the_targets(house: Path) -> None:
    assert "demo" in run("make", house)


@pytest.mark.parametrize("command", [c for c in TABLED if not c.startswith(ELSEWHERE)])
def test_command(command: str, house: Path) -> None:
    short = next((short for start, short in SHORTER.items() if command.startswith(start)), "")
    assert run(f"{command} {short}", house)
