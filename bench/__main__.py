"""``python -m bench run|device|report|...``: what artifacts take, why, and which to serve."""

from __future__ import annotations

import tyro

from bench.device.command import Device
from bench.gpu.command import GpuCheck
from bench.latency.command import Compare, Pick, Report, Run
from bench.layers.command import Layers, Predict, Roofline
from bench.load.command import Load
from bench.peers.command import Peers
from bench.studies.command import Study
from bench.timer.command import Timer
from bench.training.command import Training
from core import cli

Command = (
    Run
    | Device
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
    | Peers
    | GpuCheck
)


def main() -> int | None:
    """Does what the command line asks for, and returns its exit status."""
    cli.collect_rarely()
    return tyro.cli(Command, prog="python -m bench")()


if __name__ == "__main__":
    cli.run(main)
