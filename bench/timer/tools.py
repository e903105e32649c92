"""Other programs that time a graph: runs them in turns and parses their output."""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from artifact.artifact import Artifact
from core.errors import UserError
from core.files import write_whole
from core.preprocess import Pixels

_RESULT = "result.txt"  # for a tool that writes its result to a file
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


class ToolFailed(UserError):
    """An installed tool failed, or printed no median."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolJob:
    """The work that all tools time.

    Attributes:
        artifact: the artifact whose graph is run.
        pixels: input, uint8 (batch, H, W, 3).
        threads: CPU threads inside a call.
        seconds: duration by wall clock; rounded up to whole seconds for the tools.
    """

    artifact: Artifact
    pixels: Pixels
    threads: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Tool:
    """A program that times a graph.

    Attributes:
        name: name of the program.
        runtime: name of our runtime with the same library.
        package: how to install it.
        arguments: takes a job and an empty folder, writes the program's input files into the
            folder, and returns the program's arguments.
        median: pattern of the printed median, with groups for the number and its unit.
    """

    name: str
    runtime: str
    package: str
    arguments: Callable[[ToolJob, Path], list[str]]
    median: re.Pattern[str]


def find_tool(name: str) -> str | None:
    """Returns the path of a program in this environment, or else on PATH; None if missing."""
    here = str(Path(sys.executable).parent)
    return shutil.which(name, path=os.pathsep.join([here, os.environ.get("PATH", "")]))


class ToolRun:
    """A run of a tool that is paused except in its turns.

    It is paused and continued by signals. An interrupted call is one slow sample among many, which
    hardly affects a median. So both timers see the same background load.
    """

    def __init__(self, tool: Tool, command: list[str], folder: Path, printed: IO[str]) -> None:
        self._tool = tool
        self._command = command
        self._folder = folder
        self._printed = printed
        self._process = subprocess.Popen(command, cwd=folder, stdout=printed, stderr=printed)
        self._process.send_signal(signal.SIGSTOP)

    def turn(self, seconds: float) -> None:
        """Continues the tool for ``seconds``, or until it ends."""
        self._process.send_signal(signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self._process.send_signal(signal.SIGSTOP)

    def median(self, patience: float) -> float:
        """Lets the tool run to its end and returns the median that it prints, in seconds.

        Raises:
            ToolFailed: it fails, takes longer than ``patience`` seconds, or prints no median.
        """
        again = f"try it: {shlex.join(self._command)}"
        self._process.send_signal(signal.SIGCONT)
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            raise ToolFailed(f"it does not end; {again}") from None
        self._printed.seek(0)
        text = self._printed.read()
        report = self._folder / _RESULT
        written = report.read_text(errors="replace") if report.exists() else ""
        found = self._tool.median.search(text + written)
        if code or found is None:
            last = text.strip().rpartition("\n")[2] or "nothing"
            raise ToolFailed(f"it ends with {code} and says {last!r}; {again}")
        return float(found[1]) * _UNITS[found[2]]

    def end(self) -> None:
        """Kills the tool."""
        self._process.kill()
        self._process.wait()


@contextmanager
def started(tool: Tool, command: list[str], folder: Path) -> Iterator[ToolRun]:
    """Yields a paused run of ``tool`` in ``folder``, which is killed after the block."""
    with tempfile.TemporaryFile("w+", errors="replace") as printed:
        run = ToolRun(tool, command, folder, printed)
        try:
            yield run
        finally:
            run.end()


def _benchmark_app(job: ToolJob, folder: Path) -> list[str]:
    """Uses the settings of artifact/runtimes/openvino_cpu.py: one request, no pinning or bf16."""
    pixels = folder / "pixels.npy"
    np.save(pixels, job.pixels)
    shape = "[" + ",".join(map(str, job.pixels.shape)) + "]"
    options = {
        "-m": str(job.artifact.model_file.resolve()),
        "-i": str(pixels),
        "-d": "CPU",
        "-api": "sync",
        "-hint": "none",
        "-nstreams": "1",
        "-nireq": "1",
        "-nthreads": str(job.threads),
        "-pin": "NO",
        "-infer_precision": {"fp16": "f16", "bf16": "bf16"}.get(job.artifact.precision, "f32"),
        # Like our runtime: a fixed shape for batch size 1, otherwise a dynamic one.
        "-shape" if len(job.pixels) == 1 else "-data_shape": shape,
        "-t": str(math.ceil(job.seconds)),
    }
    return [word for option in options.items() for word in option]


def _perf_test(job: ToolJob, folder: Path) -> list[str]:
    """Uses the settings of artifact/runtimes/ort.py; writes the input where the tool expects it."""
    import onnx

    graph = folder / "model.onnx"
    graph.symlink_to(job.artifact.model_file.resolve())
    tensor = onnx.numpy_helper.from_array(job.pixels, job.artifact.input.name)
    write_whole(folder / "test_data_set_0" / "input_0.pb", tensor.SerializeToString())
    options = {
        "-e": "cpu",
        "-m": "duration",
        "-t": str(math.ceil(job.seconds)),
        "-x": str(job.threads),
        "-y": "1",
        "-o": "99",  # all optimizations, the default of a session
    }
    words = [word for option in options.items() for word in option]
    return [*words, "-s", str(graph), str(folder / _RESULT)]


TOOLS = (
    Tool(
        name="benchmark_app",
        runtime="openvino",
        package="pip install '.[openvino]'",
        arguments=_benchmark_app,
        median=re.compile(r"Median:\s+([\d.]+) (us|ms)"),
    ),
    Tool(
        name="onnxruntime_perf_test",
        runtime="ort-cpu",
        package="it comes with a build of ONNX Runtime from source",
        arguments=_perf_test,
        median=re.compile(r"P50 Latency(?: is|:) ?([\d.e+-]+) ?(s)"),
    ),
)
