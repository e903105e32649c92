from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from made_layers import PEAKS, layer, times

import bench.layers.measure
from artifact.artifact import Artifact
from bench.experiment import this_machine
from bench.layers.measure import profile_all
from bench.layers.peaks import keep_peaks, known_peaks
from bench.layers.record import FILE, keep_layers, known_layers
from bench.measure.timing import Plan
from core.errors import UserError

Artifacts = Callable[..., Artifact]
PLAN = Plan(count=5, seconds=0.0, rounds=5)


def test_layers_are_kept_and_known_again(tmp_path: Path) -> None:
    here = this_machine().key
    assert known_layers(tmp_path) == []
    first = times("a", layer(), machine=here)
    second = times("b", layer(), machine=here)
    keep_layers([first], tmp_path)
    keep_layers([second], tmp_path)
    assert known_layers(tmp_path) == [first, second]
    newer = dataclasses.replace(first, sha256="1" * 64)
    keep_layers([newer], tmp_path)
    assert known_layers(tmp_path) == [newer, second]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "line 1 is no header of schema 1"),
        ("no json", "line 1 is no header of schema 1"),
        ("{header}\n{}", "line 2: model: "),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, lines: str, message: str) -> None:
    path = keep_layers([times("a", layer(), machine=this_machine().key)], tmp_path)
    header = path.read_text().splitlines()[0]
    path.write_text(lines.replace("{header}", header))
    with pytest.raises(UserError, match=f"{FILE}: {message}.*delete the file"):
        known_layers(tmp_path)


def test_what_was_profiled_is_not_profiled_again(
    make_artifact: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = make_artifact()
    engine = dataclasses.replace(
        graph, format="tensorrt_rtx", precision="fp16", sha256s={"model.engine": "0" * 64}
    )
    artifacts = [graph, engine]
    found = profile_all(artifacts, batches=(1, 4), threads=1, plan=PLAN)
    assert [(row.network, row.batch) for row in found.rows] == [("tiny-toy", 1), ("tiny-toy", 4)]
    assert all(row.seconds > 0 for row in found.rows)
    assert {(one.artifact, one.batch) for one in found.missing} == {
        ("tensorrt_rtx-fp16", 1),
        ("tensorrt_rtx-fp16", 4),
    }

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("profiled again")

    monkeypatch.setattr(bench.layers.measure, "_open", refuse)
    again = profile_all(artifacts[:1], batches=(1, 4), threads=1, known=found.rows, plan=PLAN)
    assert again.rows == found.rows
    stale = [dataclasses.replace(row, sha256="1" * 64) for row in found.rows]
    missing = profile_all(artifacts[:1], batches=(1,), threads=1, known=stale, plan=PLAN).missing
    assert "profiled again" in missing[0].reason


def test_peaks_are_kept_while_layers_beside_them_are(tmp_path: Path) -> None:
    first, second, third = (
        dataclasses.replace(PEAKS, when=f"2026-11-2{day}T00:00:00+00:00") for day in (2, 3, 4)
    )
    other = dataclasses.replace(first, threads=2)
    for peaks in (other, first):
        keep_peaks(peaks, tmp_path)
    keep_peaks(second, tmp_path, beside={first.when, second.when})
    assert known_peaks(tmp_path) == (other, first, second)
    keep_peaks(third, tmp_path, beside={third.when})
    assert known_peaks(tmp_path) == (other, third)
    slower = dataclasses.replace(third, launch=2e-6)
    keep_peaks(slower, tmp_path, beside={third.when})
    assert known_peaks(tmp_path) == (other, slower)  # no maximum of the two
    (tmp_path / "peaks.json").write_text("[]")
    with pytest.raises(UserError, match="no peaks of schema 1"):
        known_peaks(tmp_path)
