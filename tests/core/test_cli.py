from __future__ import annotations

import gc
import sys

import pytest
from rich.table import Table

from core import cli
from core.cli import results


@pytest.fixture
def wide() -> Table:
    """Returns a table of 20 columns of 20 letters each."""
    table = Table(box=None, pad_edge=False)
    for index in range(20):
        table.add_column(f"{index:_>20}", no_wrap=True)
    table.add_row(*(f"{index:.>20}" for index in range(20)))
    return table


Capture = pytest.CaptureFixture[str]


def test_a_pipe_cuts_and_wraps_nothing(
    wide: Table, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    results().print(wide)
    results().print("word " * 400)
    header, row, sentence = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header == [f"{index:_>20}" for index in range(20)]
    assert row == [f"{index:.>20}" for index in range(20)]
    assert sentence == ["word"] * 400


@pytest.mark.parametrize("columns", [60, 130, 300])
def test_columns_decides_the_width(
    wide: Table, monkeypatch: pytest.MonkeyPatch, capsys: Capture, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    results().print(wide)
    assert {len(line) for line in capsys.readouterr().out.splitlines()} == {columns}


@pytest.mark.parametrize("columns", ["", "0", "-3", "wide"])
def test_columns_that_are_no_width_are_none(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    width = results().width
    monkeypatch.setenv("COLUMNS", columns)
    assert results().width == width > 1000


def test_a_terminal_decides_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert results().width < 1000


def test_garbage_is_collected_but_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    before = gc.get_threshold()
    monkeypatch.setattr("core.cli.gc", gc)  # tests/conftest.py keeps commands from changing it
    try:
        gc.set_threshold(700, 10, 10)
        cli.collect_rarely()
        assert gc.isenabled()
        assert gc.get_threshold()[0] >= 10_000
    finally:
        gc.set_threshold(*before)
