"""The programs that time a model on a phone: the benchmark tool of the runtime of each format.

Each is built for Android and given by its path. The parsers follow the source code of the tools.
"""

from __future__ import annotations

import re
import shlex
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from artifact.artifact import Artifact
from artifact.golden import golden_pixels
from bench.device.adb import FOLDER
from core.errors import UserError, first_line

BIN = f"{FOLDER}/bin"  # folder of the tools and their libraries on the phone
_PIXELS = "pixels.bin"
_RESULT = "result.txt"
_NUMBER = r"(\d[\d.]*(?:e[+-]?\d+)?)"
# e_machine in the header of an ELF file -> Android's name of the ABI.
_ABIS = {183: "arm64-v8a", 40: "armeabi-v7a", 62: "x86_64", 3: "x86", 243: "riscv64"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """The work of one turn.

    Attributes:
        artifact: the artifact to run.
        folder: folder on the phone with the files of :attr:`DeviceTool.files`.
        mask: bit mask of the cores for ``taskset``.
        batch: batch size.
        threads: CPU threads inside a call.
        warm: number of untimed calls at the start.
        calls: number of timed calls.
        answers: whether to write the outputs to a file, if the tool can.
    """

    artifact: Artifact
    folder: str
    mask: str
    batch: int
    threads: int
    warm: int
    calls: int
    answers: bool = False


@dataclass(frozen=True, slots=True)
class Times:
    """The times of a turn.

    Attributes:
        samples: seconds of each call, or a single one, the mean of all calls.
        averaged: number of calls of that mean; None if there is a sample for each call.
    """

    samples: tuple[float, ...]
    averaged: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceTool:
    """A program that times a model on a phone.

    Attributes:
        name: name of the program and of its flag.
        format: format of the artifacts that it runs.
        runtime: name of our runtime with the same library.
        files: takes an artifact and a batch size and returns the program's input files: name to
            the path of a local file, or to its content.
        arguments: takes a job and returns the program's arguments; it runs in the job's folder.
        times: parses the output of a job; raises ValueError if it has no times.
        result: name of the file to which it appends its result, if it does not print it.
        answers: the flag that makes it write its outputs, and the name of the output file; None
            if it cannot.
        one_image: whether it supports batch size 1 only.
        in_log: tag in Android's log, if it writes its output there.
        real: whether it runs the model's own weights and images.
    """

    name: str
    format: str
    runtime: str
    files: Callable[[Artifact, int], Mapping[str, Path | bytes]]
    arguments: Callable[[Job], list[str]]
    times: Callable[[str, Job], Times]
    result: str | None = None
    answers: tuple[str, str] | None = None
    one_image: bool = False
    in_log: str | None = None
    real: bool = True

    @property
    def flag(self) -> str:
        """Returns the command-line flag for its path."""
        return "--" + self.name.replace("_", "-")

    def command(self, job: Job) -> str:
        """Returns the command line of a turn, for the phone's shell."""
        path = f"LD_LIBRARY_PATH={BIN}"
        arguments, old = self.arguments(job), [self.result] if self.result else []
        if job.answers and self.answers:
            arguments.append(self.answers[0])
            old.append(self.answers[1])
        run = f"{path} taskset {job.mask} {BIN}/{self.name} {' '.join(arguments)}"
        if self.in_log:  # print the log of this process only
            log = f"logcat -d -v raw --pid=$pid -s {self.in_log}:I"
            run = f"{{ {run} & pid=$!; wait $pid; status=$?; {log}; exit $status; }}"
        clear = [f"rm -f {' '.join(old)}"] if old else []
        show = [f"cat {self.result}"] if self.result else []
        return " && ".join([f"cd {shlex.quote(job.folder)}", *clear, run, *show])


def _pixels(artifact: Artifact, batch: int) -> bytes:
    return golden_pixels(artifact, batch).tobytes()


def _benchmark_model(job: Job) -> list[str]:
    shape, name = job.artifact.preprocess.shape, job.artifact.input.name
    return [
        f"--graph={job.artifact.model_file.name}",
        f"--num_threads={job.threads}",
        "--use_xnnpack=true",
        f"--input_layer={name}",
        f"--input_layer_shape={','.join(map(str, (job.batch, *shape)))}",
        f"--input_layer_value_files={name}:{_PIXELS}",
        f"--warmup_runs={job.warm}",
        "--warmup_min_secs=0",
        f"--num_runs={job.calls}",
        "--min_secs=0",
    ]


def _benchmark_model_times(text: str, job: Job) -> Times:
    """It prints the mean; of single calls only the first, minimum, maximum and last."""
    mean = re.search(rf"Inference timings in us: .*Inference \(avg\): {_NUMBER}", text)
    counts = re.findall(r"\bcount=(\d+) ", text)
    if mean is None or not counts:
        raise ValueError("no line 'Inference timings in us'")
    return Times((round(float(mean[1]) / 1e6, 9),), int(counts[-1]))


def _perf_test(job: Job) -> list[str]:
    return [
        *("-e", "cpu", "-m", "times", "-r", str(job.warm + job.calls)),
        *("-x", str(job.threads), "-y", "1", "-o", "99"),
        *("-s", job.artifact.model_file.name, _RESULT),
    ]


def _perf_test_files(artifact: Artifact, batch: int) -> dict[str, Path | bytes]:
    import onnx

    tensor = onnx.numpy_helper.from_array(golden_pixels(artifact, batch), artifact.input.name)
    return {
        artifact.model_file.name: artifact.model_file,
        "test_data_set_0/input_0.pb": tensor.SerializeToString(),
    }


def _perf_test_times(text: str, job: Job) -> Times:
    """Its file has a line for each call: model, seconds, memory, CPU usage, number."""
    seconds = re.findall(rf"^[^,\n]*,{_NUMBER},\d+,-?\d+,\d+\s*$", text, re.MULTILINE)
    if len(seconds) != job.warm + job.calls:
        raise ValueError(f"{len(seconds)} calls in its file, not {job.warm + job.calls}")
    return Times(tuple(round(float(value), 9) for value in seconds[job.warm :]))


def _benchncnn(job: Job) -> list[str]:
    height, width, channels = job.artifact.preprocess.shape
    model = job.artifact.model_file.name
    return [
        *(str(job.calls), str(job.threads), "0", "-1", "0"),
        f"param={model}",
        f"'shape=[{width},{height},{channels}]'",
    ]


def _benchncnn_times(text: str, job: Job) -> Times:
    mean = re.search(rf"\bmin = +{_NUMBER} +max = +{_NUMBER} +avg = +{_NUMBER}", text)
    if mean is None:
        raise ValueError("no line with 'avg ='")
    return Times((round(float(mean[3]) / 1e3, 9),), job.calls)


def _executor_runner(job: Job) -> list[str]:
    return [
        f"--model_path={job.artifact.model_file.name}",
        f"--inputs={_PIXELS}",
        f"--num_executions={job.warm + job.calls}",
        f"--cpu_threads={job.threads}",
    ]


def _executor_runner_times(text: str, job: Job) -> Times:
    """Since 2026 it logs each call; before, only the sum of all calls, including the warm-up."""
    each = re.findall(rf"\bIteration \d+ of \d+: {_NUMBER} ms", text)
    if len(each) == job.warm + job.calls:
        return Times(tuple(round(float(value) / 1e3, 9) for value in each[job.warm :]))
    total = re.search(rf"executed successfully (\d+) time\(s\) in {_NUMBER} ms", text)
    if total is None or not int(total[1]):
        raise ValueError("no times in its log: build it with EXECUTORCH_ENABLE_LOGGING=ON")
    count = int(total[1])
    return Times((round(float(total[2]) / 1e3 / count, 9),), count)


def _model_and_pixels(artifact: Artifact, batch: int) -> dict[str, Path | bytes]:
    return {artifact.model_file.name: artifact.model_file, _PIXELS: _pixels(artifact, batch)}


TOOLS = {
    tool.format: tool
    for tool in (
        DeviceTool(
            name="benchmark_model",
            format="litert",
            runtime="litert",
            files=_model_and_pixels,
            arguments=_benchmark_model,
            times=_benchmark_model_times,
            answers=("--output_filepath=answers.bin", "answers.bin"),
        ),
        DeviceTool(
            name="onnxruntime_perf_test",
            format="onnx",
            runtime="ort-cpu",
            files=_perf_test_files,
            arguments=_perf_test,
            times=_perf_test_times,
            result=_RESULT,
        ),
        DeviceTool(
            name="benchncnn",
            format="ncnn",
            runtime="ncnn",
            files=lambda artifact, batch: {artifact.model_file.name: artifact.model_file},
            arguments=_benchncnn,
            times=_benchncnn_times,
            one_image=True,
            real=False,
        ),
        DeviceTool(
            name="executor_runner",
            format="executorch",
            runtime="executorch",
            files=_model_and_pixels,
            arguments=_executor_runner,
            times=_executor_runner_times,
            in_log="ExecuTorch",
            answers=("--output_file=answers", "answers-0.bin"),
        ),
    )
}


def read_times(tool: DeviceTool, text: str, job: Job) -> Times:
    """Parses the output of ``tool``.

    Raises:
        UserError: it has no times, or some are not positive and finite.
    """
    try:
        found = tool.times(text, job)
    except ValueError as error:
        raise UserError(f"{tool.name} printed no times: {first_line(error)}") from None
    if not found.samples or not all(0 < sample < float("inf") for sample in found.samples):
        raise UserError(f"{tool.name} printed times that no call can take: {found.samples}")
    return found


def abi_of(tool: DeviceTool, path: Path) -> str:
    """Returns the ABI that the program ``path`` is built for.

    Raises:
        UserError: it cannot be read, or is no program of Android.
    """
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError as error:
        raise UserError(
            f"{tool.flag} {path}: {error.strerror}; give the path of a program"
        ) from None
    if head[:4] != b"\x7fELF" or len(head) < 20:
        raise UserError(
            f"{tool.flag} {path}: it is no program of Android; build {tool.name} for it"
        )
    (kind,) = struct.unpack("<H", head[18:20])
    return _ABIS.get(kind, f"an unknown processor ({kind})")


def check_tool(tool: DeviceTool, path: Path, abis: Iterable[str]) -> None:
    """Raises UserError unless ``path`` is a program for one of ``abis``."""
    abi, there = abi_of(tool, path), list(abis)
    if abi not in there:
        raise UserError(
            f"{tool.flag} {path}: it is built for {abi}, and the phone runs {', '.join(there)}"
        )
