"""A stored sweep as a report: each quantity has one value in it, and few files take part."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from bench.latency.record import Sweep, read_sweep
from bench.latency.sections import explaining_sections, latency_report, show
from report.format import ms
from report.html import page
from report.markdown import document
from report.section import Report, Table

ROOT = Path(__file__).resolve().parents[3]
RUN = ROOT / "tests" / "bench" / "stored" / "run"
Key = tuple[str, str, str, str]  # network, precision, runtime, batch


@pytest.fixture(scope="module")
def sweep() -> Iterator[Sweep]:
    """Yields the stored sweep, on the machine that it was measured on."""
    stored = read_sweep(RUN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("core.machine.this_machine", lambda packages: stored.machine)
        yield stored


@pytest.fixture(scope="module")
def report(sweep: Sweep) -> Report:
    return latency_report(sweep, explaining_sections(sweep, RUN))


def p50s(report: Report) -> Iterator[tuple[str, Key, str]]:
    """Yields where the p50 of a candidate is said, of which one, and the milliseconds in words."""
    assert report.lead is not None
    tables = [("what to serve", report.lead)]
    tables += [(part.title, table) for part in report.sections for table in part.tables]
    for title, table in tables:
        for cells in table.rows:
            row = dict(zip(table.header, cells, strict=True))
            network = row.get("Network", "")
            if "Serve" in row:
                artifact, _, runtime = row["Serve"].partition(" in ")
                yield title, (network, artifact[5:], runtime, "1"), row["p50 ms"]
                yield f"{title}, torch", (network, "fp32", "torch", "1"), row["torch ms"]
            elif title.startswith("Fewer MACs"):
                setting = re.search(r"\((\S+) (\S+), batch (\d+),", title)
                assert setting is not None
                slow, fast = row["p50 ms"].split(" / ")
                where = (setting[2], setting[1], setting[3])
                yield title, (row["Fewer MACs, slower"], *where), slow
                yield title, (row["More MACs, faster"], *where), fast
            elif title == "Latency predicted from layers" and "Measured ms" in row:
                yield (
                    title,
                    (network, row["Precision"], "ort-cpu", row["Batch"]),
                    row["Measured ms"],
                )
            elif "p50 ms" in row:
                runtime = row.get("Runtime", "ort-cpu")  # whose kernels the roofline is of
                yield title, (network, row["Precision"], runtime, row["Batch"]), row["p50 ms"]
        for part in report.sections:
            for sentence in part.sentences:
                batch = re.search(r"batch (\d+)", sentence)
                said = re.findall(r"(\w+) \(onnx-(\w+) in ([\w-]+), ([\d.,]+) ms", sentence)
                for network, precision, runtime, value in said:
                    assert batch is not None
                    yield f"{part.title}, in words", (network, precision, runtime, batch[1]), value
    for figure in (*report.figures, *(each for part in report.sections for each in part.figures)):
        for records in figure.data.values():
            for point in records:
                if "candidate" in point:
                    where = (point["precision"], point["runtime"], str(point["batch"]))
                    yield figure.title, (point["network"], *where), ms(point["p50"] / 1e3)
                    spoken = point["p50, p95, p99 (ms)"].partition(" / ")[0]
                    yield f"{figure.title}, pointed at", (point["network"], *where), spoken


def test_one_quantity_has_one_value(sweep: Sweep, report: Report) -> None:
    found: dict[Key, dict[str, set[str]]] = {}
    for where, (network, *setting), value in p50s(report):
        key = (network.removesuffix("-random"), *setting)
        found.setdefault(key, {}).setdefault(value, set()).add(where)  # type: ignore[arg-type]
    differing = {key: values for key, values in found.items() if len(values) > 1}
    assert differing == {}
    places = [len(set.union(*values.values())) for values in found.values()]
    assert len(places) == len(sweep.measured())
    assert sum(count >= 4 for count in places) > 10


class Cells(HTMLParser):
    """Collects the cells of all rows of tables."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        if tag == "tr":
            self.rows.append([])
        self._inside = tag in ("td", "th")
        if self._inside:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1][-1] += data


def test_every_renderer_shows_the_same_cells(report: Report) -> None:
    assert report.lead is not None
    tables = [report.lead, *(table for part in report.sections for table in part.tables)]
    cells = Cells()
    cells.feed(page(report))
    assert cells.rows == [list(row) for table in tables for row in (table.header, *table.rows)]
    lines = document(report).splitlines()
    rows = [line[2:-2].split(" | ") for line in lines if line.startswith("| ")]
    facts = Table(header=("Fact", "Value"), rows=tuple(report.facts))
    for table in (*tables, facts):
        for expected in (table.header, *table.rows):
            shown = rows.pop(0)
            if set(shown) <= {"---", "---:"}:
                shown = rows.pop(0)
            assert [cell.replace("\\|", "|").replace("\\<", "<") for cell in shown] == list(
                expected
            )


def test_few_files_take_part_in_showing_a_sweep(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stay is one visit of a file by the sweep, or by the report that is made of it.

    Calls that take either as an argument are followed, once from each line of code; a file that is
    left and entered again is another stay. A method of the two is no visit: it is asked, not told.
    """
    monkeypatch.setattr("report.write.png", lambda spec: b"")  # drawing takes seconds
    folder = Path(shutil.copytree(RUN, tmp_path / "out"))
    ours = tuple(f"{ROOT / name}/" for name in ("artifact", "bench", "core", "models", "report"))
    stays: list[str] = []
    seen: set[tuple[str, int, str]] = set()

    def is_followed(value: object) -> bool:
        return value is sweep or isinstance(value, Report)

    def trace(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(ours) or code.co_name[0] == "<":
            return
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        given = [frame.f_locals[name] for name in names if name != "self"]
        caller = frame.f_back
        while caller and not (
            caller.f_code.co_filename.startswith(ours) and caller.f_code.co_name[0] != "<"
        ):
            caller = caller.f_back
        if not any(map(is_followed, given)) or caller is None:
            return
        site = (caller.f_code.co_filename, caller.f_lineno, code.co_qualname)
        if site not in seen:
            seen.add(site)
            for file in (caller.f_code.co_filename, code.co_filename):
                if not stays or stays[-1] != file:
                    stays.append(file)

    before = sys.gettrace()
    sys.settrace(trace)  # which returns None: of a function its call alone is traced
    try:
        show(sweep, folder)
    finally:
        sys.settrace(before)
    assert 15 < len(stays) < 25, stays
