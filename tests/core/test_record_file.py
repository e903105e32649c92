"""Rows that survive the process that wrote them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.gpu.parity import ParityRow
from core.errors import UserError, in_words
from core.record_file import append_row, read_rows, write_rows

ROW = ParityRow(model="a", runtime="ort-cpu", batch=1, reason="no GPU", when="2026-11-22T00:00:00")


def test_rows_are_added_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    assert read_rows(path, ParityRow) == []
    append_row(path, ROW)
    append_row(path, ROW)
    assert read_rows(path, ParityRow) == [ROW, ROW]
    write_rows(path, [ROW])
    assert read_rows(path, ParityRow) == [ROW]


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_row(path, ROW)
    path.write_bytes(path.read_bytes() + b'{"model": "b", "runti')
    assert read_rows(path, ParityRow) == [ROW]


def test_a_line_that_says_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_row(path, ROW)
    path.write_bytes(path.read_bytes() + b'{"model": 7}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl: line 2.*run that step again"):
        read_rows(path, ParityRow, remedy="run that step again")


def test_reasons_in_words() -> None:
    assert in_words(UserError("no GPU here")) == "no GPU here"
    assert in_words(RuntimeError("CUDA error: 700\nand more")) == "RuntimeError: CUDA error: 700"
