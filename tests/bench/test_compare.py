from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.commands.compare import Compare
from bench.compare import compare
from bench.rows import Row, Sweep
from bench.sweep_file import write_sweep
from models.errors import UserError

Rows = Callable[..., Row]
Sweeps = Callable[..., Sweep]


def with_torch(sweep: Sweep, version: str) -> Sweep:
    machine = dataclasses.replace(sweep.machine, versions={"torch": version})
    return dataclasses.replace(sweep, machine=machine)


def test_what_changed_beyond_noise_is_named(make_row: Rows, make_sweep: Sweeps) -> None:
    old = make_sweep(
        make_row(ms=2.0),
        make_row(ms=2.0, batch=8),
        make_row(ms=2.0, precision="int8", spread=0.3),
        make_row(ms=2.0, runtime="openvino"),
        make_row(ms=2.0, runtime="openvino", batch=8),
    )
    new = make_sweep(
        make_row(ms=2.2),
        make_row(ms=1.5, batch=8),
        make_row(ms=2.3, precision="int8", spread=0.3),  # 15 %, but the turns differ by more
        make_row(ms=2.04, runtime="openvino"),  # sure, but below the least that counts
        make_row(ms=2.0, runtime="openvino", batch=4),
    )
    found = compare(old, new)
    assert [change.ratio for change in found.verdicts("slower")] == [pytest.approx(1.1)]
    assert [change.before.batch for change in found.verdicts("faster")] == [8]
    assert len(found.verdicts("same")) == 2
    assert [row.batch for row in found.lost] == [8]
    assert [row.batch for row in found.new] == [4]
    assert found.control is None
    assert not compare(old, new, least=0.4).verdicts("slower")


def test_what_torch_moved_is_the_machines(make_row: Rows, make_sweep: Sweeps) -> None:
    old = make_sweep(make_row(ms=2.0), make_row(ms=9.0, runtime="torch"))
    new = make_sweep(make_row(ms=2.3), make_row(ms=10.8, runtime="torch"))
    same = compare(with_torch(old, "2.14"), with_torch(new, "2.14"))
    assert same.control == pytest.approx(0.2)
    assert not same.verdicts("slower")
    newer = compare(with_torch(old, "2.14"), with_torch(new, "2.15"))  # then it is no control
    assert newer.control is None
    assert len(newer.verdicts("slower")) == 2


def test_rows_that_were_reused_are_no_control(make_row: Rows, make_sweep: Sweeps) -> None:
    row = make_row(ms=9.0, runtime="torch")
    sweep = with_torch(make_sweep(row), "2.14")
    assert compare(sweep, sweep).control is None


def test_different_machines_and_different_candidates_are_refused(
    make_row: Rows, make_sweep: Sweeps
) -> None:
    sweep = make_sweep(make_row())
    other = dataclasses.replace(
        sweep, machine=dataclasses.replace(sweep.machine, cpu="another processor")
    )
    with pytest.raises(UserError, match="measured on different machines: a processor, 2 cores"):
        compare(sweep, other)
    with pytest.raises(UserError, match="no candidate in common"):
        compare(sweep, make_sweep(make_row(batch=3)))


def test_the_status_is_for_continuous_integration(
    tmp_path: Path, make_row: Rows, make_sweep: Sweeps, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sweep(make_sweep(make_row(ms=2.0)), tmp_path / "a")
    write_sweep(make_sweep(make_row(ms=3.0, sha256="1" * 64)), tmp_path / "b")
    assert Compare(before=tmp_path / "a", after=tmp_path / "b")() == 1
    printed = capsys.readouterr().out
    assert "slower, artifact differs" in printed
    assert "1 candidates: 1 slower, 0 faster, 0 the same within 5.0 %" in printed
    assert Compare(before=tmp_path / "b", after=tmp_path / "a" / "latency.jsonl")() == 0
    with pytest.raises(UserError, match="no such file"):
        Compare(before=tmp_path / "a", after=tmp_path / "c")()
