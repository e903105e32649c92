"""OpenVINO leaves the signals of its process as they were."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SIGNALLED = """
import signal
import numpy as np
from artifact.runtimes.openvino_cpu import load_bare
from tiny_artifact import colour_means

graph, pixels = colour_means(8).SerializeToString(), np.zeros((1, 8, 8, 3), np.uint8)
calls = [load_bare(None, graph, pixels, 1) for _ in range(2)]
for call in calls:
    assert call().shape == (1, 3)
del call, calls[0], calls[0]  # in the order in which they were made
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
signal.raise_signal(signal.SIGTERM)
"""


def test_a_signal_after_two_graphs_were_closed_is_handled() -> None:
    # Where OpenVINO makes no stack for signals, it passes with any number of cores.
    command = [sys.executable, "-c", SIGNALLED]
    paths = f"{ROOT}:{ROOT / 'tests/fakes'}"
    ended = subprocess.run(command, env={"PYTHONPATH": paths}, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "handled\n"), ended.stderr
