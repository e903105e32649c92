"""The programs that time a model on a phone: one for each format, by people who made its runtime.

Each is built for Android and given by its path. What they print was looked up in their source text.
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

BIN = f"{FOLDER}/bin"  # of the tools and their libraries, on the phone
_PIXELS = "pixels.bin"
_RESULT = "result.txt"
_NUMBER = r"(\d[\d.]*(?:e[+-]?\d+)?)"
# Kind of program in the head of an ELF file (e_machine): Android's names of such phones.
_ABIS = {183: "arm64-v8a", 40: "armeabi-v7a", 62: "x86_64", 3: "x86", 243: "riscv64"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """The work of one turn.

    Attributes:
        artifact: its model is run.
        folder: on the phone, with what :attr:`DeviceTool.files` puts there.
        mask: the cores that may be used, as ``taskset`` wants them.
        batch: images per call.
        threads: CPU threads inside one call.
        warm: calls that are not timed, first.
        calls: calls that are.
        answers: whether the outputs are written to a file, too, if the tool can do that.
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
    """The seconds that a turn took.

    Attributes:
        samples: of each call; or one, the mean of all.
        averaged: of how many calls the one sample is the mean; None where each is a call.
    """

    samples: tuple[float, ...]
    averaged: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceTool:
    """A program that times a model on a phone.

    Attributes:
        name: of the program; its flag is called the same.
        format: of the artifacts that it runs.
        runtime: ours, which computes by the same library.
        files: what it reads besides its arguments: name to a file here, or to its content.
        arguments: of the program, which is started in the folder of these files.
        times: what it printed, as times; raises ValueError where there are none.
        result: the file that it adds its figures to, if it does not print them.
        answers: the flag that has it write its outputs, and the file they are in then; None where
            it cannot.
        one_image: whether it can only run one image a call.
        in_log: whether it writes to Android's log, under this name.
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
        """Returns the flag that takes its path."""
        return "--" + self.name.replace("_", "-")

    def command(self, job: Job) -> str:
        """Returns what the phone's shell is given for a turn."""
        path = f"LD_LIBRARY_PATH={BIN}"
        arguments, old = self.arguments(job), [self.result] if self.result else []
        if job.answers and self.answers:
            arguments.append(self.answers[0])
            old.append(self.answers[1])
        run = f"{path} taskset {job.mask} {BIN}/{self.name} {' '.join(arguments)}"
        if self.in_log:  # of this process alone
            log = f"logcat -d -v raw --pid=$pid -s {self.in_log}:I"
            run = f"{{ {run} & pid=$!; wait $pid; status=$?; {log}; exit $status; }}"
        clear = [f"rm -f {' '.join(old)}"] if old else []
        show = [f"cat {self.result}"] if self.result else []
        return " && ".join([f"cd {shlex.quote(job.folder)}", *clear, run, *show])


def _pixels(artifact: Artifact, batch: int) -> bytes:
    return golden_pixels(artifact, batch).tobytes()


def _benchmark_model(job: Job) -> list[str]:
    side, name = job.artifact.preprocess.crop, job.artifact.input.name
    return [
        f"--graph={job.artifact.model_file.name}",
        f"--num_threads={job.threads}",
        "--use_xnnpack=true",
        f"--input_layer={name}",
        f"--input_layer_shape={job.batch},{side},{side},3",
        f"--input_layer_value_files={name}:{_PIXELS}",
        f"--warmup_runs={job.warm}",
        "--warmup_min_secs=0",
        f"--num_runs={job.calls}",
        "--min_secs=0",
    ]


def _benchmark_model_times(text: str, job: Job) -> Times:
    """Its one figure is the mean: of single calls it tells the first, least, greatest and last."""
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
    """Its file has a line for each call: model, seconds, memory, use of the CPU, number."""
    seconds = re.findall(rf"^[^,\n]*,{_NUMBER},\d+,-?\d+,\d+\s*$", text, re.MULTILINE)
    if len(seconds) != job.warm + job.calls:
        raise ValueError(f"{len(seconds)} calls in its file, not {job.warm + job.calls}")
    return Times(tuple(round(float(value), 9) for value in seconds[job.warm :]))


def _benchncnn(job: Job) -> list[str]:
    side = job.artifact.preprocess.crop
    model = job.artifact.model_file.name
    return [
        *(str(job.calls), str(job.threads), "0", "-1", "0"),
        f"param={model}",
        f"'shape=[{side},{side},3]'",
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
    """Since 2026 it logs each call; before, the sum of all, those of the warm-up among them."""
    each = re.findall(rf"\bIteration \d+ of \d+: {_NUMBER} ms", text)
    if len(each) == job.warm + job.calls:
        return Times(tuple(round(float(value) / 1e3, 9) for value in each[job.warm :]))
    total = re.search(rf"executed successfully (\d+) time\(s\) in {_NUMBER} ms", text)
    if total is None:
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
    """Returns the times in what ``tool`` printed.

    Raises:
        UserError: there are none, or such as no call can take.
    """
    try:
        found = tool.times(text, job)
    except ValueError as error:
        raise UserError(f"{tool.name} printed no times: {first_line(error)}") from None
    if not found.samples or not all(0 < sample < float("inf") for sample in found.samples):
        raise UserError(f"{tool.name} printed times that no call can take: {found.samples}")
    return found


def check_tool(tool: DeviceTool, path: Path, abis: Iterable[str]) -> None:
    """Raises UserError unless ``path`` is a program that phones of one of ``abis`` can run."""
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
    abi = _ABIS.get(kind, f"an unknown processor ({kind})")
    there = list(abis)
    if abi not in there:
        raise UserError(
            f"{tool.flag} {path}: it is built for {abi}, and the phone runs {', '.join(there)}"
        )
