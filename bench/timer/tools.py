"""Other programs that time a graph: their arguments, their turns and their output."""

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

_RESULT = "result.txt"  # what a tool does not print it may write
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


class ToolFailed(UserError):
    """A tool that is there and gives no median."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolJob:
    """The work that all tools time.

    Attributes:
        artifact: its graph is run.
        pixels: uint8 (batch, H, W, 3), the same for all.
        threads: CPU threads inside one call.
        seconds: of measuring, by the clock on the wall; the tools take whole ones.
    """

    artifact: Artifact
    pixels: Pixels
    threads: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Tool:
    """A program that times a graph.

    Attributes:
        name: of the program.
        runtime: of ours, which computes the same.
        package: what brings it.
        arguments: of the program, for a job in an empty folder, into which what it reads is put.
        median: how it prints the median: a number and its unit.
    """

    name: str
    runtime: str
    package: str
    arguments: Callable[[ToolJob, Path], list[str]]
    median: re.Pattern[str]


def find_tool(name: str) -> str | None:
    """Returns this environment's program, else the one on PATH, or None."""
    here = str(Path(sys.executable).parent)
    return shutil.which(name, path=os.pathsep.join([here, os.environ.get("PATH", "")]))


class ToolRun:
    """A run of a tool, which stands still until it is given its turn.

    It is stopped and continued by signals. A call that is interrupted so is one slow sample among
    many, which a median does not see; and both tools see the same background load.
    """

    def __init__(self, tool: Tool, command: list[str], folder: Path, printed: IO[str]) -> None:
        self._tool = tool
        self._command = command
        self._folder = folder
        self._printed = printed
        self._process = subprocess.Popen(command, cwd=folder, stdout=printed, stderr=printed)
        self._process.send_signal(signal.SIGSTOP)

    def turn(self, seconds: float) -> None:
        """Lets it run for ``seconds``, if it has not ended."""
        self._process.send_signal(signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self._process.send_signal(signal.SIGSTOP)

    def median(self, patience: float) -> float:
        """Returns the median that it prints, in seconds, after it ran to its end.

        Raises:
            ToolFailed: it fails, takes longer than ``patience``, or prints something else.
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
        """Ends it, whatever it does."""
        self._process.kill()
        self._process.wait()


@contextmanager
def started(tool: Tool, command: list[str], folder: Path) -> Iterator[ToolRun]:
    """Yields a run of ``tool`` in ``folder``; it is ended afterwards if it has not."""
    with tempfile.TemporaryFile("w+", errors="replace") as printed:
        run = ToolRun(tool, command, folder, printed)
        try:
            yield run
        finally:
            run.end()


def _benchmark_app(job: ToolJob, folder: Path) -> list[str]:
    """As artifact/runtimes/openvino_cpu.py has it: one request, no pinning, never bfloat16."""
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
        "-infer_precision": "f16" if job.artifact.precision == "fp16" else "f32",
        # We compile a batch of one for its shape, and any other batch for all shapes.
        "-shape" if len(job.pixels) == 1 else "-data_shape": shape,
        "-t": str(math.ceil(job.seconds)),
    }
    return [word for option in options.items() for word in option]


def _perf_test(job: ToolJob, folder: Path) -> list[str]:
    """As artifact/runtimes/ort.py has it; the input lies where this tool looks for it."""
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
        "-o": "99",  # all optimizations, which is what a session does by itself
    }
    words = [word for option in options.items() for word in option]
    return [*words, "-s", str(graph), str(folder / _RESULT)]


TOOLS = (
    Tool(
        name="benchmark_app",
        runtime="openvino",
        package="pip install .[openvino]",
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
