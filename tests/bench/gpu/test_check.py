"""The whole GPU check, with fake steps, and on a machine without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import bench.gpu.command
from artifact.runtimes.gpu import Gpu
from bench.gpu.check import (
    FILE,
    ROOT,
    STEPS,
    Outcome,
    Step,
    choose,
    folder_name,
    run_check,
    step_command,
    summary_table,
)
from bench.gpu.command import GpuCheck
from bench.gpu.parity import ParityRow
from bench.gpu.process import _GRACE, Budget
from core.errors import UserError
from core.lazy import resolve
from core.record_file import read_rows
from report.terminal import print_table

PLAYED = (
    Step("tests", "Works", "no.module:run", 1, ("mine.jsonl",)),
    Step("training", "Crashes", "no.module:run", 1),
    Step("latency", "Hangs", "no.module:run", 0.15),
    Step("engine", "Dies", "no.module:run", 1),
    Step("report", "Works, too", "no.module:run", 1),
)
CODE = {
    "tests": "print('result: all is well')",
    "training": "raise ValueError('no such kernel')",
    "latency": "import time; print('result: 1 of 9', flush=True); time.sleep(60)",
    "engine": "import os; os.abort()",
    "report": "import os; print('result:', os.environ['POCKETNETS_DATA'])",
}


def played(step: Step, folder: Path, seconds: float) -> Sequence[str]:
    return (sys.executable, "-c", CODE[step.name])


def test_no_step_ends_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETNETS_DATA", "/somewhere/data")
    folder = tmp_path / "reports" / "gpu" / "a-gpu"
    folder.mkdir(parents=True)
    (folder / "mine.jsonl").write_text("old\n")
    found = run_check(folder, Budget(120), PLAYED, played)
    assert [one.state for one in found] == ["done", "failed", "stopped", "failed", "done"]
    for one, said in zip(
        found,
        ("all is well", "no such kernel", "1 of 9", "SIGABRT", "/somewhere/data"),
        strict=True,
    ):
        assert said in one.result
    assert not (folder / "mine.jsonl").exists()
    assert read_rows(folder / FILE, Outcome) == found
    assert "no such kernel" in (folder / "training.log").read_text()
    text = (folder / "summary.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    for one, line in zip(found, lines, strict=True):
        assert one.title in line
        assert one.result in line
        assert one.when in line
    assert found[0].machine.cpu in text


def test_what_no_time_is_left_for_is_not_begun(tmp_path: Path) -> None:
    found = run_check(tmp_path, Budget(6), PLAYED, played)
    assert {one.state for one in found[:3]} == {"not measured"}
    assert "6" in found[0].result  # seconds of the budget
    assert not (tmp_path / "tests.log").exists()


def test_the_other_steps_keep_their_rows(tmp_path: Path) -> None:
    first = run_check(tmp_path, Budget(60), PLAYED[:2], played)
    second = run_check(tmp_path, Budget(60), PLAYED[1:2], played)
    assert read_rows(tmp_path / FILE, Outcome) == [first[0], second[0]]


def test_the_table_has_a_line_for_each_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run_check(tmp_path, Budget(60), PLAYED[:2], played)
    print_table(summary_table(found))
    _, *lines = capsys.readouterr().out.splitlines()
    for one, line in zip(found, lines, strict=True):
        assert one.title in line
        assert one.result in line


def test_steps_are_chosen_with_what_they_need() -> None:
    names = lambda steps: [step.name for step in steps]  # noqa: E731
    assert choose(()) == list(STEPS)
    assert names(choose(("parity",))) == ["exports", "parity", "report"]
    assert names(choose(("engine", "tests"))) == ["tests", "engine", "report"]
    with pytest.raises(UserError, match=r"'latencies'.* latency"):
        choose(("latencies",))


def test_every_step_has_a_module_and_a_command() -> None:
    for step in STEPS:
        assert callable(resolve(step.run))
    assert sum(step.weight for step in STEPS) == 1950
    command = step_command(STEPS[0], Path("/out"), 12.34)
    assert command[1:] == ("-m", "bench.gpu", "tests", "--out", "/out", "--seconds", "12.3")


def test_the_name_of_a_folder() -> None:
    assert folder_name("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"


def test_a_step_without_its_files_fails_in_one_line(tmp_path: Path) -> None:
    steps = [step for step in STEPS if step.name == "parity"]
    commands = lambda step, folder, seconds: (  # noqa: E731
        sys.executable, "-m", "bench.gpu", "no_step", "--out", str(folder), "--seconds", "1",
    )  # fmt: skip
    (found,) = run_check(tmp_path, Budget(60), steps, commands)
    assert found.state == "failed"
    assert "'no_step'" in found.result
    assert "Traceback" not in found.result


def test_the_command_prints_the_table_last(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = Gpu(name="NVIDIA Made-Up 1", capability="9.0", driver="13.0")
    monkeypatch.setattr(bench.gpu.command, "require_gpu", lambda name: gpu)
    monkeypatch.setattr(bench.gpu.command, "choose", lambda names: PLAYED[:1])
    real = run_check
    monkeypatch.setattr(
        bench.gpu.command, "run_check", lambda *given: real(*given, commands=played)
    )
    assert GpuCheck(budget="1m")() == 0
    lines = capsys.readouterr().out.splitlines()
    assert "all is well" in lines[-2]
    assert lines[-1] == "reports/gpu/nvidia-made-up-1"
    monkeypatch.setattr(bench.gpu.command, "choose", lambda names: PLAYED[:2])
    assert GpuCheck(budget="1m")() == 1


def test_a_step_that_is_stopped_writes_down_what_it_did_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its budget ends, and then its limit, when it is at work: no clock has a say.
    ready = tmp_path / "ready"
    code = (
        "import pathlib, sys, time, bench.gpu.parity as parity\n"
        "from core.errors import in_words\n"
        "from bench.gpu import __main__ as main\n"
        "from bench.gpu.process import Budget\n"
        "seconds = 0.0\n"
        "def compare(*_):\n"
        "    global seconds\n"
        "    try:\n"
        "        seconds = 4.0\n"
        "        pathlib.Path(sys.argv[2]).touch()\n"
        "        while True:\n"
        "            time.sleep(0.01)\n"
        "    except Exception as error:\n"
        "        yield parity.ParityRow(model='a', runtime='b', batch=1,\n"
        "                            reason=in_words(error), when='')\n"
        "parity.compare = compare\n"
        "main.Budget = lambda given: Budget(given, clock=lambda: seconds)\n"
        "main.StepRun(step='parity', out=pathlib.Path(sys.argv[1]), seconds=3)()\n"
    )
    commands = lambda step, folder, seconds: (  # noqa: E731
        sys.executable, "-c", code, str(folder), str(ready),
    )  # fmt: skip
    real = subprocess.Popen.wait

    def wait(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        if timeout in (None, _GRACE):
            return real(process)  # it was asked to end
        while process.poll() is None:
            if ready.exists():
                raise subprocess.TimeoutExpired(process.args, timeout)
            time.sleep(0.01)
        return process.returncode

    monkeypatch.setattr(subprocess.Popen, "wait", wait)
    (found,) = run_check(
        tmp_path, Budget(60), [Step("parity", "Parity", "no.module:run", 1)], commands
    )
    assert found.state == "stopped"
    rows = read_rows(tmp_path / "parity.jsonl", ParityRow)
    assert len(rows) > 10
    assert all(row.reason for row in rows)
    assert {row.reason for row in rows[1:]} == {rows[1].reason}  # none of them was begun
    assert rows[0].reason != rows[1].reason
    assert f" {len(rows)} " in found.result
    assert str(rows[0].reason) in found.result


@pytest.mark.no_gpu
def test_without_a_gpu_it_ends_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "gpu-check"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: gpu-check: ")
    assert "libcuda.so.1" in line
    assert list(tmp_path.iterdir()) == []


def test_make_runs_it_without_a_virtual_environment() -> None:
    command = ["make", "-n", "gpu-check", "BIN=nowhere", "PYTHON=some-python", "ARGS=--only study"]
    # Not those of the make that may run the tests.
    outside = {k: v for k, v in os.environ.items() if "MAKE" not in k and k != "MFLAGS"}
    done = subprocess.run(
        command, cwd=ROOT, env=outside, capture_output=True, text=True, check=True
    )
    assert done.stdout == "some-python -m bench gpu-check --only study\n"
