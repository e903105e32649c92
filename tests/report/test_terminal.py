from __future__ import annotations

import pytest

from report.format import MISSING
from report.section import Report, Section, Table
from report.terminal import ROWS, print_table, show_report

NETWORKS = [f"a_network_with_a_long_name_{number:02}-shapes" for number in range(20)]


def table() -> Table:
    return Table(
        header=("Network", "p50 ms", "torch ms", "A tie with"),
        rows=tuple((network, "1.0", MISSING, "") for network in NETWORKS),
        numeric=frozenset({"p50 ms"}),
    )


def test_what_tells_rows_apart_is_not_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    print_table(table())
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[1:]] == NETWORKS
    assert "torch ms" not in out  # a column that says nothing takes no room


def test_a_report_ends_in_few_rows_unless_all_are_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = Report(name="x", title="", subtitle="", summary=("Found.",), terminal=table())
    show_report(report)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [f"{len(NETWORKS) - ROWS} more rows; --all lists them", "Found."]
    assert len(lines) == 1 + ROWS + 2
    show_report(report, every=True)
    assert NETWORKS[-1] in capsys.readouterr().out


def test_no_table_comes_twice(capsys: pytest.CaptureFixture[str]) -> None:
    other = Table(header=("Cores",), rows=(("big",),))
    sections = (
        Section(title="Alone", tables=(table(),)),
        Section(title="Beside another", sentences=("Said.",), tables=(table(), other)),
    )
    report = Report(
        name="x", title="", subtitle="", summary=(), terminal=table(), sections=sections
    )
    show_report(report, every=True)
    out = capsys.readouterr().out
    assert out.count(NETWORKS[0]) == 1
    assert "Alone" not in out
    assert out.splitlines()[-4:] == ["Beside another", "Said.", "Cores", "big  "]
