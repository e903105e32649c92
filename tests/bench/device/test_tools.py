"""What each tool is told, and what is read of what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_phone import SERIAL, FakePhone

from artifact.artifact import Artifact
from bench.device.adb import Adb
from bench.device.tools import BIN, TOOLS, Job, Times, read_times
from core.errors import UserError

LITERT = "INFO: count=50 first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450\n\n"


@pytest.fixture
def job(make_phone_artifact: Callable[..., Artifact]) -> Job:
    return Job(
        artifact=make_phone_artifact("onnx-fp32", "a"),
        folder="/data/local/tmp/pocketnets/a-toy/model/1",
        mask="c0",
        batch=1,
        threads=1,
        warm=2,
        calls=3,
    )


@pytest.mark.parametrize(
    ("form", "text", "times"),
    [
        # From tensorflow/tensorflow issue 42507.
        (
            "litert",
            f"count=15 first=49060 curr=33682 min=32825 max=49060 avg=34825.1 std=3930\n{LITERT}"
            "Inference timings in us: Init: 855, First inference: 49060, Warmup (avg): 34825.1, "
            "Inference (avg): 33209.4",
            Times((0.0332094,), 50),
        ),
        (
            "litert",
            "INFO: count=2 curr=1500000(all same)\nINFO: Inference timings in us: Init: 1, First "
            "inference: 1500000, Warmup (avg): 1.5e+06, Inference (avg): 1.5e+06",
            Times((1.5,), 2),
        ),
        # From Tencent/ncnn, benchmark/README.md.
        (
            "ncnn",
            "loop_count = 8\ncooling_down = 1\n"
            "          squeezenet  min =    8.84  max =    8.89  avg =    8.87",
            Times((0.00887,), 3),
        ),
        (
            "executorch",
            "".join(f"Iteration {n} of 5: {n / 10:f} ms\n" for n in range(1, 6)),
            Times((0.0003, 0.0004, 0.0005)),
        ),
        (
            "executorch",
            "I 00:00:01.8 executorch:executor_runner.cpp:298] Model executed successfully 5 time(s)"
            " in 1096.626000 ms.",
            Times((0.2193252,), 5),
        ),
        (
            "onnx",
            "".join(f"model,0.00{n},158171136,68,{n}\n" for n in range(1, 6)),
            Times((0.003, 0.004, 0.005)),
        ),
    ],
)
def test_times_are_read(job: Job, form: str, text: str, times: Times) -> None:
    assert read_times(TOOLS[form], text, job) == times


@pytest.mark.parametrize("form", list(TOOLS))
@pytest.mark.parametrize("text", ["", "ERROR: Failed to load model", LITERT])
def test_what_is_no_time_is_told(job: Job, form: str, text: str) -> None:
    with pytest.raises(UserError, match=f"{TOOLS[form].name} printed no times"):
        read_times(TOOLS[form], text, job)


def test_a_time_of_nothing_is_no_time(job: Job) -> None:
    with pytest.raises(UserError, match="printed no times"):
        read_times(TOOLS["executorch"], "executed successfully 0 time(s) in 1.0 ms", job)
    with pytest.raises(UserError, match="no call can take"):
        read_times(TOOLS["ncnn"], "x  min =    0.00  max =    0.00  avg =    0.00", job)


@pytest.mark.parametrize("form", list(TOOLS))
def test_a_command_runs_on_the_phone(
    fake_phone: FakePhone, job: Job, form: str, tmp_path: Path
) -> None:
    fake_phone.takes(a=4.0)
    adb, tool = Adb(SERIAL), TOOLS[form]
    adb.shell(f"mkdir -p {BIN} {job.folder}/test_data_set_0")
    adb.push(fake_phone.program(tool.name), f"{BIN}/{tool.name}")
    for name, content in tool.files(job.artifact, 1).items():
        if isinstance(content, bytes):
            (local := tmp_path / "content").write_bytes(content)
        else:
            local = content
        adb.push(local, f"{job.folder}/{name}")
    times = read_times(tool, adb.shell(tool.command(job)), job)
    assert sum(times.samples) / len(times.samples) == pytest.approx(0.004, rel=0.02)
    assert times.averaged == (3 if form in ("litert", "ncnn") else None)
    fake_phone.save(broken="a-toy")
    with pytest.raises(UserError, match="exit status 1 and said: ERROR: Failed to run"):
        adb.shell(tool.command(job))
