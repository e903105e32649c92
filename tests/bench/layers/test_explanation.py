from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_layers import PEAKS, layer, times

import bench.layers.explanation
from artifact.artifact import Artifact
from bench.experiment import this_machine
from bench.latency.record import Row, Sweep
from bench.layers.explanation import Bounded, explain, profile
from bench.layers.measure import Profiles
from bench.layers.peaks import Peaks, keep_peaks, known_peaks
from bench.layers.record import LayerTimes, keep_layers, known_layers
from bench.layers.roofline import doubt
from bench.measure.timing import Latency
from core.errors import UserError

Rows = Callable[..., Row]
Sweeps = Callable[..., Sweep]
Artifacts = Callable[..., Artifact]
WHEN = PEAKS.when


def taking(ms: float) -> Latency:
    return Latency(turns=((ms / 1e3,) * 5,) * 5, warmup=1)


def network(model: str = "tiny", *, kernels: float = 2.0, call: float = 2.0) -> LayerTimes:
    """Returns layers of this machine that add up to ``kernels`` ms, beside calls of ``call`` ms."""
    made = layer(seconds=kernels / 1e3)
    return times(model, made, call=taking(call), machine=this_machine().key)


@pytest.fixture
def peaks(monkeypatch: pytest.MonkeyPatch) -> list[Peaks]:
    """Returns the peaks that were measured: each time half of what they were before."""
    measured: list[Peaks] = []

    def measure(runtime: str, threads: int) -> Peaks:
        made = dataclasses.replace(
            PEAKS,
            machine=this_machine().key,
            flops={name: rate / 2 ** len(measured) for name, rate in PEAKS.flops.items()},
            when="now",
        )
        measured.append(made)
        return made

    monkeypatch.setattr(bench.layers.explanation, "measure_peaks", measure)
    return measured


@pytest.mark.parametrize(
    ("kernels", "call", "sound"),
    [
        (2.0, 2.0, True),
        (2.0, 2.6, True),  # 0.2 ms of it are Python's
        (2.0, 2.8, False),
        (2.0, 20.0, False),  # a busy machine interrupts calls, and kernels seldom
        (2.6, 2.0, False),
        (0.005, 0.03, True),  # a network of nothing is all binding
    ],
)
def test_layers_must_add_up_to_the_call_beside_them(
    kernels: float, call: float, sound: bool
) -> None:
    reason = doubt(network(kernels=kernels, call=call))
    assert (reason is None) is sound
    assert sound or f"{kernels:.2f} ms" in str(reason)


@pytest.mark.parametrize(("shown", "sound"), [(2.0, True), (1.7, True), (2.4, True), (7.66, False)])
def test_layers_must_agree_with_the_call_that_is_shown(
    make_row: Rows, shown: float, sound: bool
) -> None:
    reason = doubt(network(), make_row(ms=shown))
    assert (reason is None) is sound
    assert sound or f" {shown:.2f} ms" in str(reason)
    assert doubt(network(), make_row(ms=2.0, sha256="1" * 64)) is not None  # another graph


def test_one_call_has_one_latency_in_a_report(
    tmp_path: Path, make_row: Rows, make_sweep: Sweeps
) -> None:
    here = this_machine().key
    keep_layers([network(call=2.2), dataclasses.replace(network(), batch=8)], tmp_path)
    keep_peaks(dataclasses.replace(PEAKS, machine=here), tmp_path)
    sweep = make_sweep(make_row(ms=2.0), make_row(ms=5.0, batch=8), make_row(ms=1, batch=4))
    bounded = explain(tmp_path, sweep)
    (roof,) = bounded.roofs
    assert roof.times.call.p50 == pytest.approx(2e-3)  # the sweep's, not 2.2
    assert known_layers(tmp_path)[0].call.p50 == pytest.approx(2.2e-3)
    assert [(one.network, one.batch) for one in bounded.missing] == [("tiny-toy", 8)]
    (section,) = bounded.sections()
    assert section.tables[0].rows[0][3] == "2.00"
    assert re.search(r"\b2\.00 ms .*\b5\.00 ms", section.tables[-1].rows[0][3])


def test_layers_of_an_earlier_version_have_no_peaks_beside_them(
    tmp_path: Path, make_row: Rows, make_sweep: Sweeps
) -> None:
    keep_layers([network()], tmp_path)
    old = dataclasses.replace(PEAKS, machine=this_machine().key, when="2026-11-20T00:00:00+00:00")
    keep_peaks(old, tmp_path)
    bounded = explain(tmp_path, make_sweep(make_row(ms=2.0)))
    assert bounded.roofs == ()
    assert "peaks" in bounded.missing[0].reason


def test_nothing_and_few_families(tmp_path: Path, make_sweep: Sweeps) -> None:
    assert explain(tmp_path, make_sweep()).sections() == []
    keep_peaks(dataclasses.replace(PEAKS, machine=this_machine().key), tmp_path)
    few = [network(model) for model in ("mobilenet_v2", "resnet50")]
    keep_layers(few, tmp_path)

    def titles(bounded: Bounded) -> list[str]:
        return [part.title for part in bounded.sections()]

    sweep = make_sweep()
    assert titles(explain(tmp_path, sweep)) == []  # the sweep is of none of them
    judged = bench.layers.explanation._Judge(tmp_path, None)
    assert titles(judged.bound(few)) == ["What bounds the layers (1 thread)"]
    assert len(titles(judged.bound([*few, network("shufflenet_v2_x1_0")]))) == 2


@pytest.fixture
def profiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns what was profiled: a call of 2 ms, at a time of its own."""
    names: list[str] = []

    def profile_all(
        artifacts: Sequence[Artifact], *, known: Sequence[LayerTimes], **options: Any
    ) -> Profiles:
        old = {row.model: row for row in known}
        new = [one.model for one in artifacts if one.model not in old]
        names.extend(new)
        when = f"2026-11-22T{len(names):02}:00:00+00:00"
        rows = []
        for one in artifacts:
            sha256 = one.sha256s["model.onnx"]
            made = dataclasses.replace(network(one.model), when=when, sha256=sha256)
            rows.append(old.get(one.model, made))
        return Profiles(rows=tuple(rows), missing=(), when=when if new else None)

    monkeypatch.setattr(bench.layers.explanation, "profile_all", profile_all)
    return names


def test_layers_are_profiled_again_until_they_agree(
    tmp_path: Path,
    make_artifact: Artifacts,
    make_row: Rows,
    make_sweep: Sweeps,
    profiled: list[str],
    peaks: list[Peaks],
) -> None:
    artifact = make_artifact()
    sha256 = artifact.sha256s["model.onnx"]

    def bench_run(ms: float, *, fresh: bool = False) -> Bounded:
        sweep = make_sweep(make_row(ms=ms, sha256=sha256))
        return profile([artifact], (1,), 1, tmp_path, sweep=sweep, fresh=fresh)

    assert len(bench_run(2.0).roofs) == 1
    assert len(bench_run(2.1).roofs) == 1
    assert profiled == ["tiny"]  # it still explains the call: reused, with its peaks
    assert len(peaks) == 1
    bounded = bench_run(7.66)
    assert (bounded.roofs, len(bounded.missing)) == ((), 1)
    assert len(profiled) == 2
    (roof,) = bench_run(2.0, fresh=True).roofs
    assert len(profiled) == len(peaks) == 3
    assert roof.peaks.flops == {"fp32": 25e9, "int8": 100e9}  # today's, though they were higher
    assert [one.when for one in known_peaks(tmp_path)] == [roof.times.when]


def test_a_network_that_comes_later_has_peaks_of_its_own(
    tmp_path: Path, make_artifact: Artifacts, profiled: list[str], peaks: list[Peaks]
) -> None:
    first = make_artifact()
    profile([first], (1,), 1, tmp_path)
    both = profile([first, make_artifact("other-toy")], (1,), 1, tmp_path)
    assert profiled == ["tiny", "other"]
    assert [roof.peaks.flops["fp32"] for roof in both.roofs] == [100e9, 50e9]
    assert len(known_peaks(tmp_path)) == 2


def test_a_broken_file_is_an_error(tmp_path: Path, make_sweep: Sweeps, make_row: Rows) -> None:
    (tmp_path / "layers.jsonl").write_text("no json")
    with pytest.raises(UserError, match="delete the file, and it is measured again"):
        explain(tmp_path, make_sweep(make_row()))
