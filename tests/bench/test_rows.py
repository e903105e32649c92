from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.rows import FILE, Row, Sweep, read_sweep, write_sweep
from models.errors import UserError

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
    for text in ("", "[]\n", "no json\n", header.replace('"schema":1', '"schema":7')):
        path.write_text(text)
        with pytest.raises(UserError, match="line 1 is no header of schema 1"):
            read_sweep(tmp_path)


def test_comparisons_stay_within_a_network_and_batch(make_row: Rows, make_sweep: Sweeps) -> None:
    fast, torch = make_row(ms=2.0), make_row(ms=8.0, runtime="torch")
    batched = make_row(ms=9.0, batch=8)
    sweep = make_sweep(fast, torch, batched)
    assert sweep.times_torch(fast) == pytest.approx(4.0)
    assert sweep.times_torch(batched) is None
    assert sweep.measured(batch=1) == [fast, torch]
    assert sweep.tied(fast) == []
    assert fast.rate == pytest.approx(17.8e6 / 0.002)


def test_ties_are_by_interval(make_row: Rows, make_sweep: Sweeps) -> None:
    a, b, c = make_row(ms=2.0, spread=0.2), make_row(ms=2.1, precision="int8"), make_row(ms=4.0)
    sweep = make_sweep(a, b, c)
    assert sweep.tied(a) == [b]
    assert sweep.tied(c) == []
