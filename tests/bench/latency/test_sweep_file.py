from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

import bench.latency.record
from bench.latency.record import FILE, Row, Sweep, earlier_sweep, read_sweep, write_sweep
from core.errors import UserError

Rows = Callable[..., Row]
Sweeps = Callable[..., Sweep]


def test_what_is_written_is_read(tmp_path: Path, make_row: Rows, make_sweep: Sweeps) -> None:
    sweep = make_sweep(make_row(ms=1.5), make_row(ms=None, reason="no driver", runtime="ort-cuda"))
    path = write_sweep(sweep, tmp_path / "reports")
    assert read_sweep(tmp_path / "reports") == sweep
    assert len(path.read_text().splitlines()) == 3
    assert [file.name for file in path.parent.iterdir()] == [FILE]


def test_a_broken_file_is_named_with_its_line(
    tmp_path: Path, make_row: Rows, make_sweep: Sweeps
) -> None:
    with pytest.raises(UserError, match="measure first with: make bench"):
        read_sweep(tmp_path)
    path = write_sweep(make_sweep(make_row()), tmp_path)
    header = path.read_text().splitlines()[0]
    path.write_text(header + '\n{"model": 3}\n')
    with pytest.raises(UserError, match=r"line 2: model: .*measure again"):
        read_sweep(tmp_path)
    for text in ("", "[]\n", "no json\n", header.replace('"schema":2', '"schema":7')):
        path.write_text(text)
        with pytest.raises(UserError, match="line 1 is no header of schema 2"):
            read_sweep(tmp_path)


def test_rows_of_this_machine_are_known_again(
    tmp_path: Path, make_row: Rows, make_sweep: Sweeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert earlier_sweep(tmp_path) is None
    sweep = make_sweep(make_row())
    monkeypatch.setattr(bench.latency.record, "this_machine", lambda: sweep.machine)
    write_sweep(sweep, tmp_path)
    assert earlier_sweep(tmp_path) == sweep
    assert earlier_sweep(tmp_path, fresh=True) == sweep  # the rows of other networks stay


def test_rows_of_another_machine_are_set_aside_and_not_lost(
    tmp_path: Path, make_row: Rows, make_sweep: Sweeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make_sweep(make_row())
    newer = dataclasses.replace(sweep.machine, versions={"python": "3.12"})
    monkeypatch.setattr(bench.latency.record, "this_machine", lambda: newer)
    for number in (1, 2):
        write_sweep(sweep, tmp_path)
        assert earlier_sweep(tmp_path) is None
        assert not (tmp_path / FILE).exists()
        assert read_sweep(tmp_path / f"latency-{number}.jsonl") == sweep


def test_a_broken_file_stops_a_run_unless_all_is_to_be_fresh(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("no json")
    with pytest.raises(UserError, match="make bench ARGS=--fresh"):
        earlier_sweep(tmp_path)
    assert (tmp_path / FILE).exists()
    assert earlier_sweep(tmp_path, fresh=True) is None
    assert (tmp_path / "latency-1.jsonl").read_text() == "no json"
