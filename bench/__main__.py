"""``python -m bench run|report|compare|...``: what artifacts take, why, and which to serve."""

from __future__ import annotations

import tyro

from bench.commands.compare import Compare
from bench.commands.gpu_check import GpuCheck
from bench.commands.layers import Layers
from bench.commands.load import Load
from bench.commands.pick import Pick
from bench.commands.roofline import Predict, Roofline
from bench.commands.run import Report, Run
from bench.commands.study import Study
from bench.commands.timer import Timer
from bench.commands.training import Training
from models import cli

Command = (
    Run
    | Report
    | Compare
    | Pick
    | Layers
    | Roofline
    | Predict
    | Study
    | Timer
    | Load
    | Training
    | GpuCheck
)


def main() -> int | None:
    """Does what the command line asks for, and returns its exit status."""
    return tyro.cli(Command, prog="python -m bench")()


if __name__ == "__main__":
    cli.run(main)
