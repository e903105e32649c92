"""A record of a real run, and the Markdown made of it: what moves code moves no word.

The record is of two networks, measured on 2026-11-26 with ``--quick``. Where the report is meant to
say something else, write ``stored/latency.md`` again in a commit of its own.
"""

from __future__ import annotations

from pathlib import Path

from bench.latency.record import read_sweep
from bench.latency.sections import show

STORED = Path(__file__).with_name("stored")


def test_the_report_of_a_stored_record_is_the_same(tmp_path: Path) -> None:
    show(read_sweep(STORED), tmp_path)
    assert (tmp_path / "latency.md").read_text() == (STORED / "latency.md").read_text()
