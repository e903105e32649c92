from __future__ import annotations

import dataclasses
import inspect
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest

import bench.timer.measure
from artifact.artifact import Artifact
from artifact.golden import golden_pixels
from artifact.runtimes.base import load_runtime
from artifact.runtimes.openvino_cpu import OpenvinoRuntime
from artifact.runtimes.ort import OrtRuntime
from bench.timer.measure import Check, EmptyCall, crosscheck, crosscheck_section, passed
from bench.timer.tools import TOOLS, Tool, ToolFailed, ToolJob, find_tool, started
from core.errors import UserError

Artifacts = Callable[..., Artifact]
Fakes = Callable[[str, str], Path]
BENCHMARK_APP, PERF_TEST = TOOLS


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    """Makes a program of some name on PATH, where nothing else is; ``body`` is Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "elsewhere" / "python"))
    monkeypatch.setenv("PATH", str(folder))
    real = os.path.realpath("/proc/self/exe")

    def make(name: str, body: str) -> Path:
        path = folder / name
        path.write_text(f"#!{real}\nimport sys\n{body}\n")
        path.chmod(0o755)
        return path

    return make


def run_tool(tool: Tool, command: list[str], folder: Path, patience: float = 60) -> float:
    with started(tool, command, folder) as run:
        return run.median(patience)


@pytest.fixture
def job(make_artifact: Artifacts) -> ToolJob:
    artifact = make_artifact()
    return ToolJob(artifact=artifact, pixels=golden_pixels(artifact, 2), threads=1, seconds=0.01)


@pytest.mark.parametrize(
    ("tool", "printed", "seconds"),
    [
        (BENCHMARK_APP, "[ INFO ]    Median:        4.53 ms", 4.53e-3),
        (BENCHMARK_APP, "[ INFO ]    Median:        746.58 us", 746.58e-6),
        (PERF_TEST, "P50 Latency: 0.0049182 s", 4.9182e-3),
        (PERF_TEST, "P50 Latency is 5.9e-05sec", 5.9e-5),
    ],
)
def test_medians_are_read_with_their_unit(
    fake: Fakes, tmp_path: Path, tool: Tool, printed: str, seconds: float
) -> None:
    path = fake(tool.name, f"print('Median of something else')\nprint({printed!r})")
    assert find_tool(tool.name) == str(path)
    assert run_tool(tool, [str(path)], tmp_path) == pytest.approx(seconds)


def test_perf_test_finds_its_input_and_may_write_the_result(
    fake: Fakes, job: ToolJob, tmp_path: Path
) -> None:
    body = "open(sys.argv[-1], 'w').write('P50 Latency is 0.002sec')\nassert '-s' in sys.argv"
    path = fake(PERF_TEST.name, body)
    folder = tmp_path / "work"
    folder.mkdir()
    arguments = PERF_TEST.arguments(job, folder)
    assert run_tool(PERF_TEST, [str(path), *arguments], folder) == pytest.approx(0.002)
    graph = Path(arguments[-2])
    assert graph.read_bytes() == job.artifact.model_file.read_bytes()
    tensor = onnx.TensorProto.FromString(
        (graph.parent / "test_data_set_0" / "input_0.pb").read_bytes()
    )
    assert tensor.name == "pixels"
    assert (onnx.numpy_helper.to_array(tensor) == job.pixels).all()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("print('done')", r"\b0 .*'done'; .*benchmark_app"),
        ("print('Median: 1.00 ms')\nsys.exit('no such model')", r"\b1 .*'no such model'"),
        ("print('Median: 1.00 s')", r"\b0 .*'Median: 1\.00 s'"),
    ],
)
def test_a_tool_that_fails_says_why(fake: Fakes, tmp_path: Path, body: str, message: str) -> None:
    path = fake("benchmark_app", body)
    with pytest.raises(ToolFailed, match=message):
        run_tool(BENCHMARK_APP, [str(path)], tmp_path)


def test_a_tool_that_does_not_end_is_ended(fake: Fakes, tmp_path: Path) -> None:
    path = fake("benchmark_app", "import time\ntime.sleep(60)")
    with pytest.raises(ToolFailed, match=f"{path}"):
        run_tool(BENCHMARK_APP, [str(path)], tmp_path, patience=0.1)


def test_a_tool_stands_still_until_its_turn(fake: Fakes, tmp_path: Path) -> None:
    log = tmp_path / "log"
    body = (
        "import os, time\n"
        f"while not os.path.exists({str(tmp_path / 'end')!r}):\n"
        f"    open({str(log)!r}, 'a').write('.')\n"
        "    time.sleep(0.001)\n"
        "print('Median: 2.00 ms')"
    )
    path = fake("benchmark_app", body)
    with started(BENCHMARK_APP, [str(path)], tmp_path) as run:
        while not log.exists():
            run.turn(0.01)
        tool = psutil.Process(run._process.pid)  # the worker may have other children: a browser
        deadline = time.monotonic() + 30
        while tool.status() != psutil.STATUS_STOPPED:  # what it was amid it may finish
            assert time.monotonic() < deadline
            time.sleep(0.01)
        before = log.read_text()
        time.sleep(0.1)  # a hundred times what it takes to write again
        assert log.read_text() == before
        while log.read_text() == before:
            run.turn(0.01)
        (tmp_path / "end").touch()
        assert run.median(patience=60) == 0.002


def test_the_turns_of_ours_and_of_a_tool(
    fake: Fakes, make_artifact: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    log = tmp_path / "log"
    fake(
        "benchmark_app",
        f"open({str(log)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\nprint('Median: 2.00 ms')",
    )
    monkeypatch.setattr(bench.timer.measure, "SHORT", 100)
    theirs, missing = crosscheck(make_artifact(), batch=2, rounds=3, seconds=0.01)
    assert theirs.theirs == (0.002, 0.002, 0.002)
    assert len(theirs.calls) == len(theirs.infers) == len(theirs.empties) == 3
    assert min(*theirs.calls, *theirs.infers, *theirs.empties) > 0
    calls = log.read_text().splitlines()
    assert len(calls) == 3
    assert "-data_shape [2,32,32,3]" in calls[0]
    assert "-nthreads 1" in calls[0]
    assert "-infer_precision f32" in calls[0]
    assert missing.reason is not None
    assert missing.theirs == ()
    assert passed([theirs, missing]) == theirs.agrees


def test_a_tool_that_fails_is_no_agreement(
    fake: Fakes, make_artifact: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.timer.measure, "SHORT", 100)
    fake(PERF_TEST.name, "sys.exit('unknown option')")
    _, failing = crosscheck(make_artifact(), rounds=3, seconds=0.01)
    assert failing.failed
    assert not passed([failing])
    assert not passed([check(1.0), failing])
    assert "unknown option" in crosscheck_section([failing]).sentences[0]


def check(ours: float, empty: float = 0.0) -> Check:
    theirs = (1e-3, 3e-3, 1.5e-3)  # a machine that is now fast, now slow: for both
    infers = tuple(ours * factor * each for factor, each in zip((1, 1.2, 0.7), theirs, strict=True))
    return Check(
        tool=BENCHMARK_APP,
        calls=tuple(1.1 * seconds for seconds in infers),
        infers=infers,
        empties=tuple(empty * seconds for seconds in theirs),
        theirs=theirs,
    )


@pytest.mark.parametrize(
    ("ours", "agrees"), [(1.0, True), (1.029, True), (0.971, True), (1.031, False), (0.969, False)]
)
def test_agreement_is_three_per_cent_either_way(ours: float, agrees: bool) -> None:
    found = check(ours)
    assert found.agrees is agrees
    assert passed([found]) is agrees
    assert f"(rounds: {0.7 * ours:.3f} to {1.2 * ours:.3f})" in found.sentence


def test_what_the_binding_adds_is_allowed_above_and_not_below() -> None:
    demo = check(1.037, empty=0.02)  # a sound timer, a call of 1.5 ms
    assert demo.allowance == pytest.approx(0.02)
    assert passed([demo])
    assert " 2.0 % " in demo.sentence
    assert not passed([check(1.037, empty=0.006)])
    assert not passed([check(0.963, empty=0.02)])


def test_an_empty_call_takes_longer_after_a_network(make_artifact: Artifacts) -> None:
    pytest.importorskip("openvino")
    called: list[str] = []
    for name in ("openvino", "ort-cpu"):
        call = EmptyCall(name, lambda: called.append("network"), make_artifact(), 1)
        assert 0 < call.median() < 0.1
    assert len(called) > 2


def test_what_is_mostly_binding_is_not_judged(
    fake: Fakes, make_artifact: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(bench.timer.measure, "SHORT", 0.0)
    fake("benchmark_app", "sys.exit('not to be run')")
    short, _ = crosscheck(make_artifact(), rounds=3, seconds=0.01)
    assert not short.failed
    assert " 0 % " in str(short.reason)
    assert not passed([short])


def test_nothing_compared_is_nothing_passed() -> None:
    missing = Check(tool=PERF_TEST, reason="it is not installed")
    assert not passed([missing])
    assert passed([missing, check(1.0)])


def test_the_section_shows_every_round() -> None:
    section = crosscheck_section([check(1.01, 0.01), Check(tool=PERF_TEST, reason="it is absent")])
    (table,) = section.tables
    assert table.rows == (
        (
            "openvino",
            "bench, pixels to logits",
            "1.11 4.00 1.17",
            "1.111 1.333 0.778",
            "1.111",
        ),
        ("openvino", "bench, pixels in place", "1.01 3.64 1.06", "1.010 1.212 0.707", "1.010"),
        ("openvino", "bench, an empty graph", "0.010 0.030 0.015", "0.010 0.010 0.010", "0.010"),
        ("openvino", "benchmark_app", "1.00 3.00 1.50", "1.000 1.000 1.000", "1.000"),
        ("ort-cpu", "onnxruntime_perf_test", "-", "-", "-"),
    )
    assert " 1.100 " in section.sentences[0]
    assert re.search(r"\bort-cpu .*onnxruntime_perf_test: it is absent", section.sentences[1])


@pytest.mark.parametrize("changes", [{"rounds": 2}, {"seconds": 0}, {"threads": 0}, {"batch": 0}])
def test_too_little_is_refused(make_artifact: Artifacts, changes: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"\b3 rounds, .*\b0 s"):
        crosscheck(make_artifact(), **changes)  # type: ignore[arg-type]


def test_an_engine_is_refused(make_artifact: Artifacts) -> None:
    engine = dataclasses.replace(make_artifact(), format="tensorrt")
    with pytest.raises(UserError, match=r"tensorrt.* ONNX"):
        crosscheck(engine)


@pytest.mark.parametrize("batch", [1, 2])
def test_benchmark_app_runs_as_our_runtime_does(
    make_artifact: Artifacts, tmp_path: Path, batch: int
) -> None:
    pytest.importorskip("openvino")
    artifact = make_artifact()
    job = ToolJob(artifact=artifact, pixels=golden_pixels(artifact, batch), threads=1, seconds=1)
    program = find_tool("benchmark_app")
    assert program is not None
    command = [program, *BENCHMARK_APP.arguments(job, tmp_path)]
    assert 0 < run_tool(BENCHMARK_APP, command, tmp_path) < 1
    if batch == 1:  # once is enough: what it says of the graph it compiled
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for line in (
            "pixels (node: pixels) : u8",
            "INFERENCE_PRECISION_HINT: <Type: 'float32'>",
            "INFERENCE_NUM_THREADS: 1",
            "NUM_STREAMS: 1",
            "ENABLE_CPU_PINNING: False",
        ):
            assert line in printed


@pytest.mark.parametrize("name", ["openvino", "ort-cpu"])
def test_a_preset_call_computes_the_same(make_artifact: Artifacts, name: str) -> None:
    if name == "openvino":
        pytest.importorskip("openvino")
    artifact = make_artifact()
    with load_runtime(name, artifact, threads=1) as runtime:
        assert isinstance(runtime, OpenvinoRuntime | OrtRuntime)
        for batch in (1, 3):
            pixels = golden_pixels(artifact, batch)
            expected = runtime(pixels)
            infer = runtime.preset(pixels)
            infer()
            held = inspect.getclosurevars(infer).nonlocals
            logits = (
                held["request"].get_output_tensor().data
                if name == "openvino"
                else held["binding"].copy_outputs_to_cpu()[0]
            )
            np.testing.assert_array_equal(logits, expected)
            np.testing.assert_array_equal(runtime(pixels), expected)  # neither disturbs the other
        with pytest.raises(UserError, match="pixels are float32"):
            runtime.preset(pixels.astype(np.float32))
