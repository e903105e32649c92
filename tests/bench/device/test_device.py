"""``bench device``: rows from a phone, turn by turn, and one line where there are none."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_phone import SERIAL, FakePhone

from artifact.artifact import Artifact
from bench.device.command import Device
from bench.device.record import Turn, read_turns
from bench.latency.record import latency, read_sweep
from core.errors import UserError

Artifacts = Callable[..., Artifact]
NAME = f"pixel-6-{SERIAL.lower()}"


@pytest.fixture
def device(fake_phone: FakePhone, tmp_path: Path) -> Callable[..., Path]:
    """Runs the command with the tool of LiteRT, and returns the folder of what it measured."""

    def run(**changes: Any) -> Path:
        flags: dict[str, Any] = {
            "artifacts": tmp_path / "artifacts",
            "out": tmp_path / "reports",
            "count": 10,
            "seconds": 0.0,
            "limit": 0.5,
            "rounds": 5,
        }
        if "benchmark_model" not in changes:
            flags["benchmark_model"] = fake_phone.program("benchmark_model")
        Device(**{**flags, **changes})()
        return tmp_path / "reports" / "phone" / NAME

    return run


def test_rows_are_the_hosts_with_the_phone_as_the_machine(
    fake_phone: FakePhone, make_phone_artifact: Artifacts, device: Callable[..., Path]
) -> None:
    fake_phone.takes(a=4.0, b=8.0)
    artifacts = [
        make_phone_artifact("litert-fp32", "a"),
        make_phone_artifact("litert-int8", "b"),
        make_phone_artifact("onnx-fp32", "b"),
    ]
    folder = device(
        onnxruntime_perf_test=fake_phone.program("onnxruntime_perf_test"), cores=("big", "little")
    )
    big, little = (read_sweep(folder / f"{name}.jsonl") for name in ("big", "little"))
    assert big.machine.key != little.machine.key
    assert "big (core 6, 7 at 2802 MHz)" in big.machine.cpu
    assert set(big.machine.versions) == {"benchmark_model", "onnxruntime_perf_test"}
    assert big.before.cpu_mhz == 2802.0
    for sweep, slower in ((big, 1), (little, 3)):
        rows = {row.folder: row for row in sweep.rows}
        assert set(rows) == {"a-toy/litert-fp32", "b-toy/litert-int8", "b-toy/onnx-fp32"}
        for artifact in artifacts:
            row = rows[f"{artifact.model}-toy/{artifact.name}"]
            assert row.reason is None
            assert row.latency is not None
            assert (row.sha256, row.machine) == (
                artifact.sha256s[artifact.model_file.name],
                sweep.machine.key,
            )
            assert len(row.latency.turns) == 5
            ms = {"a": 4.0, "b": 8.0}[artifact.model] * slower
            assert row.latency.p50 == pytest.approx(ms / 1e3, rel=0.03)
        # LiteRT's tool tells a mean, ONNX Runtime's each call; the slow first one is not counted.
        assert rows["b-toy/litert-int8"].averaged == 2
        assert {len(turn) for turn in latency(rows["b-toy/litert-int8"]).turns} == {1}
        assert rows["b-toy/onnx-fp32"].averaged is None
        assert {len(turn) for turn in latency(rows["b-toy/onnx-fp32"]).turns} == {2}
        assert rows["b-toy/onnx-fp32"].costs is not None
    check_turns(read_turns(folder))
    assert not (fake_phone.root / "data/local/tmp/pocketnets").exists()


def check_turns(turns: list[Turn]) -> None:
    """All candidates have a turn in each round, in an order that is not always the same."""
    orders = [[(t.key, t.cores) for t in turns if t.round == number] for number in range(5)]
    assert len(turns) == 30
    assert all(set(order) == set(orders[0]) and len(order) == 6 for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert all(turn.cool and not turn.throttled for turn in turns)


def test_a_turn_has_its_share_of_the_plan(
    fake_phone: FakePhone, make_phone_artifact: Artifacts, device: Callable[..., Path]
) -> None:
    fake_phone.takes(a=4.0)
    make_phone_artifact("litert-fp32", "a")
    device(count=10, seconds=0.2, limit=10)
    turns = [shlex.split(line) for line in fake_phone.commands() if "benchmark_model --" in line]
    flags = [dict(word.split("=", 1) for word in words if word.startswith("--")) for words in turns]
    # 0.04 s a turn are 10 calls of 4 ms, and half a second of untimed ones goes before them.
    assert {flag["--num_runs"] for flag in flags[1:]} == {"10"}
    assert all(120 < int(flag["--warmup_runs"]) <= 125 for flag in flags[1:])
    assert all("taskset c0 " in " ".join(words) for words in turns)


def test_what_failed_is_a_row_with_the_reason(
    fake_phone: FakePhone, make_phone_artifact: Artifacts, device: Callable[..., Path]
) -> None:
    fake_phone.takes(a=4.0)
    fake_phone.save(broken="b-toy", room=60_000)
    make_phone_artifact("litert-fp32", "a")
    make_phone_artifact("litert-fp16", "a", size=100_000)
    make_phone_artifact("litert-int8", "a").model_file.write_bytes(b"another")
    make_phone_artifact("litert-fp32", "b")
    make_phone_artifact("onnx-fp32", "b")
    sweep = read_sweep(device(threads=(1, 3)) / "big.jsonl")
    reasons = {(row.folder, row.threads): row.reason for row in sweep.rows}
    assert len(reasons) == 10
    assert reasons["a-toy/litert-fp32", 1] is None
    for key, words in {
        ("a-toy/litert-fp32", 3): "3 threads do not fit on big",
        ("a-toy/litert-fp16", 1): "phone is full: model.tflite",
        ("a-toy/litert-int8", 1): "model.tflite",
        ("b-toy/litert-fp32", 1): "status 1 and said: ERROR: Failed to run b-toy",
        ("b-toy/onnx-fp32", 1): "--onnxruntime-perf-test PATH",
    }.items():
        assert words in str(reasons[key])
    assert all(bool(row.reason) != bool(row.latency) for row in sweep.rows)


def test_where_nothing_is_measured_the_reasons_are_printed(
    fake_phone: FakePhone,
    make_phone_artifact: Artifacts,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake_phone.takes(a=0.0)
    fake_phone.save(broken="b-toy")
    make_phone_artifact("litert-fp32", "a")
    make_phone_artifact("litert-fp32", "b")
    tool = fake_phone.program("benchmark_model")
    command = Device(artifacts=tmp_path / "artifacts", out=tmp_path, benchmark_model=tool)
    assert command() == 1
    printed = capsys.readouterr().out
    for words in ("a-toy", "times that no call can take: (0.0,)", "Failed to run b-toy"):
        assert words in printed
    fake_phone.takes(a=4.0)
    assert not Device(**{**vars(command), "count": 5, "seconds": 0.0, "limit": 0.1})()


@pytest.mark.parametrize("name", ["litert-fp32", "litert-int8"])
def test_the_phone_must_give_the_golden_answers(
    fake_phone: FakePhone,
    make_phone_artifact: Artifacts,
    device: Callable[..., Path],
    name: str,
) -> None:
    fake_phone.takes(a=4.0)
    artifact = make_phone_artifact(name, "a")
    _, golden = artifact.golden()
    fake_phone.answers("a", golden[:1])
    folder = device()
    assert [turn.compared for turn in read_turns(folder)] == [True] * 5
    assert "answers not compared" not in (folder / "phone.md").read_text()
    for wrong, words in (
        (golden[:1] * np.float32(1.01), "relative error of 0.01"),
        (golden[:1] * np.float32(np.nan), "not finite"),
        (golden[:1, :2], "2 logits come out, not 3"),
    ):
        fake_phone.answers("a", wrong)
        (row,) = read_sweep(device() / "big.jsonl").rows
        assert row.latency is None
        assert words in str(row.reason)


def test_answers_that_no_tool_writes_are_not_compared(
    fake_phone: FakePhone, make_phone_artifact: Artifacts, device: Callable[..., Path]
) -> None:
    fake_phone.takes(a=4.0)
    make_phone_artifact("litert-fp32", "a")
    folder = device()
    assert not any(turn.compared for turn in read_turns(folder))
    assert "answers not compared" in (folder / "phone.md").read_text()


def test_a_pulled_cable_leaves_what_was_measured(
    fake_phone: FakePhone, make_phone_artifact: Artifacts, device: Callable[..., Path]
) -> None:
    fake_phone.takes(a=4.0, b=8.0)
    fake_phone.save(pulled_after=30)
    make_phone_artifact("litert-fp32", "a")
    make_phone_artifact("litert-fp32", "b")
    with pytest.raises(UserError, match=rf"{SERIAL} no longer answers.*{NAME}"):
        device()
    folder = Path("reports") / "phone" / NAME
    folder = next(fake_phone.root.parent.glob(str(folder)))
    rows = read_sweep(folder / "big.jsonl").rows
    taken = [len(row.latency.turns) for row in rows if row.latency]
    assert len(taken) == 2
    assert sum(taken) == len(read_turns(folder))
    assert 0 < sum(taken) < 10


def test_before_its_first_turn_a_lost_phone_is_the_reason(
    fake_phone: FakePhone, make_phone_artifact: Artifacts, device: Callable[..., Path]
) -> None:
    fake_phone.takes(a=4.0)
    fake_phone.save(pulled_after=8)
    make_phone_artifact("litert-fp32", "a")
    with pytest.raises(UserError, match="no longer answers"):
        device()
    (file,) = fake_phone.root.parent.rglob("big.jsonl")
    (row,) = read_sweep(file).rows
    assert "no longer answers" in str(row.reason)


def test_an_earlier_run_is_kept_aside(
    fake_phone: FakePhone, make_phone_artifact: Artifacts, device: Callable[..., Path]
) -> None:
    fake_phone.takes(a=4.0)
    make_phone_artifact("litert-fp32", "a")
    folder = device()
    first = (folder / "big.jsonl").read_bytes()
    device()
    assert (folder / "big-1.jsonl").read_bytes() == first
    assert len(read_turns(folder)) == 5


def test_warm_and_throttled_turns_are_marked(
    fake_phone: FakePhone, make_phone_artifact: Artifacts, device: Callable[..., Path]
) -> None:
    fake_phone.takes(a=4.0)
    make_phone_artifact("litert-fp32", "a")
    fake_phone.heat(35, 35, 80)
    (fake_phone.root / "throttling").write_text("1\n")
    turns = read_turns(device(patience=0))
    assert [turn.throttled for turn in turns] == [True] * 5
    assert [turn.cool for turn in turns] == [False] * 5
    assert turns[0].before.celsius == 80


def test_a_dry_run_prints_what_a_run_does_and_does_nothing(
    fake_phone: FakePhone,
    make_phone_artifact: Artifacts,
    device: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake_phone.takes(a=4.0)
    make_phone_artifact("litert-fp32", "a")
    device(dry_run=True, benchmark_model=Path("benchmark_model"))
    assert not (fake_phone.root / "commands").exists()
    printed = capsys.readouterr()
    assert "5 follow in random order" in printed.err
    lines = [shlex.split(line) for line in printed.out.splitlines()]
    assert lines.pop(0) == ["adb", "devices", "-l"]
    assert {tuple(words[:3]) for words in lines} == {("adb", "-s", "SERIAL")}
    pushed = [words[4] for words in lines if words[3] == "push"]
    assert all(Path(path).exists() for path in pushed if path != "benchmark_model")
    dry = [words[4].replace("MASK_BIG", "c0") for words in lines if words[3] == "shell"]
    device()
    ran = fake_phone.commands()
    assert set(dry) <= set(ran)


def test_a_dry_run_of_two_clusters_tells_them_apart(
    fake_phone: FakePhone,
    make_phone_artifact: Artifacts,
    device: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_phone_artifact("litert-fp32", "a")
    device(dry_run=True, cores=("big", "little", "big"))
    turns = [line for line in capsys.readouterr().out.splitlines() if "taskset" in line]
    assert ["MASK_BIG" in line for line in turns] == [True, False]
    assert ["MASK_LITTLE" in line for line in turns] == [False, True]
    with pytest.raises(UserError, match="cores are 'tiny': there are big, little, middle"):
        device(dry_run=True, cores=("big", "tiny"))


def test_a_missing_tool_is_said_before_a_phone_is_looked_for(
    make_phone_artifact: Artifacts, device: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_phone_artifact("litert-fp32", "a")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="--benchmark-model nowhere: No such file"):
        device(benchmark_model=Path("nowhere"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"benchmark_model": None}, "--benchmark-model, --onnxruntime-perf-test"),
        ({"benchmark_model": Path("nowhere")}, "--benchmark-model nowhere: No such file"),
        ({"benchmark_model": Path(__file__)}, "no program of Android"),
        ({"libraries": (Path("nowhere.so"),)}, "--libraries nowhere.so"),
        ({"adb": ("A", "B")}, "--adb is A B"),
        ({"adb": ("A",)}, f"no phone 'A' .*{SERIAL}"),
        ({"cores": ("huge",)}, "cores are 'huge'"),
        ({"threads": (0,)}, r"threads \[0\]"),
        ({"model": "absent"}, "no artifacts of absent"),
    ],
)
def test_a_mistake_is_one_line(
    fake_phone: FakePhone,
    make_phone_artifact: Artifacts,
    device: Callable[..., Path],
    flags: dict[str, Any],
    words: str,
) -> None:
    make_phone_artifact("litert-fp32", "a")
    with pytest.raises(UserError, match=words) as error:
        device(**flags)
    assert "\n" not in str(error.value)


def test_a_tool_for_another_phone_is_refused(
    fake_phone: FakePhone, make_phone_artifact: Artifacts, device: Callable[..., Path]
) -> None:
    make_phone_artifact("litert-fp32", "a")
    with pytest.raises(UserError, match="built for x86_64, and the phone runs arm64-v8a"):
        device(benchmark_model=fake_phone.program("benchmark_model", machine=62))


def test_the_report_says_what_it_knows(
    fake_phone: FakePhone,
    make_phone_artifact: Artifacts,
    device: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake_phone.takes(a=4.0)
    make_phone_artifact("litert-fp32", "a")
    make_phone_artifact("onnx-fp32", "a")
    folder = device(cores=("big", "little"))
    assert capsys.readouterr().out.splitlines()[-1] == str(folder / "phone.html")
    page = (folder / "phone.md").read_text()
    for words in ("Google Tensor in Pixel 6", "litert-fp32 in litert", "means of 2 calls"):
        assert words in page
    for words in ("--onnxruntime-perf-test PATH", "35 to 35", "Android 13 (API 33"):
        assert words in page
    rows = [line for line in page.splitlines() if line.startswith("| a-toy | litert-fp32 in")]
    assert [line.split(" | ")[2] for line in rows] == ["big", "little"]
