from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from bench.latency.record import Row, Sweep
from bench.latency.sections import write_latency
from report.format import millions, ms
from report.write import Files

Rows = Callable[..., Row]
Sweeps = Callable[..., Sweep]


class Page(HTMLParser):
    """Collects what a page would fetch, and the tags it leaves open."""

    void = frozenset({"meta", "link", "br", "img", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.void:
            self.open.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, make_row: Rows, make_sweep: Sweeps) -> Files:
    sweep = make_sweep(
        make_row(ms=4.0, runtime="torch"),
        make_row(ms=1.0, spread=0.1, precision="int8"),
        make_row(ms=1.01, spread=0.1, metrics=None),
        make_row(ms=8.0, batch=8, runtime="torch"),
        make_row(ms=5.0, batch=8),
        make_row(ms=None, reason="no <driver> | here", runtime="ort-cuda"),
        make_row(ms=None, reason="no <driver> | here", runtime="ort-cuda", batch=8),
    )
    return write_latency(sweep, tmp_path_factory.mktemp("reports"))


def test_the_page_is_whole_and_fetches_nothing(report: Files) -> None:
    text = report.html.read_text(encoding="utf-8")
    page = Page(text)
    assert page.fetched == ["data:,"]
    assert page.open == []
    assert 'src="http' not in text
    assert "@import" not in text
    assert "url(http" not in text
    assert "vegaEmbed" in text


def test_the_page_says_what_the_rows_say(report: Files) -> None:
    text = report.html.read_text(encoding="utf-8")
    assert "17.8 M MACs per image" in text
    assert re.search(r"\b4\.0 times .*4\.00 ms; .*3\.6 to 4\.4\)", text)
    assert re.search(r"\bties .*onnx-int8 in ort-cpu", text)
    assert "98.3 % of 359" in text
    assert "no &lt;driver&gt; | here" in text
    assert text.count("no &lt;driver&gt;") == 1  # batch 1 and 8 share a line
    found = re.search(r"^const specs = (.*);$", text, re.MULTILINE)
    assert found is not None
    specs = json.loads(found.group(1))
    assert len(specs) == 4  # dots and latency against MACs, at batch 1 and 8
    assert all(spec["width"] == "container" for spec in specs)


def test_the_table_is_markdown(report: Files) -> None:
    lines = report.markdown.read_text(encoding="utf-8").splitlines()
    header = next(number for number, line in enumerate(lines) if line.startswith("| Network"))
    widths = {len(re.split(r"(?<!\\)\|", line)) for line in lines[header : header + 7]}
    assert len(widths) == 1
    assert lines[header + 2].startswith("| tiny-toy | int8 | ort-cpu | 1 | 1 | 1.00 |")
    assert r"no \<driver> \| here" in "\n".join(lines)


def test_the_picture_is_a_picture(report: Files) -> None:
    assert report.png is not None
    with Image.open(report.png) as image:
        assert image.format == "PNG"
        assert image.width > 1500


def test_several_networks_share_the_charts(
    tmp_path: Path, make_row: Rows, make_sweep: Sweeps
) -> None:
    big = {"folder": "big-toy/onnx-fp32", "model": "big", "macs": 4_090_000_000}
    sweep = make_sweep(
        make_row(ms=4.0, runtime="torch"),
        make_row(ms=1.0),
        make_row(ms=90.0, runtime="torch", **big),
        make_row(ms=10.0, **big),
    )
    text = write_latency(sweep, tmp_path).html.read_text(encoding="utf-8")
    assert "Over 2 networks" in text
    assert re.search(r"\b6\.0 times .*4\.0 to 9\.0; .*4\.0 to 9\.0\)", text)
    assert "<h2>What to serve</h2>" in text
    assert "big-toy" in text.partition("<h2>What to serve</h2>")[2].partition("</table>")[0]


def test_a_report_without_figures_has_no_charts(
    tmp_path: Path, make_row: Rows, make_sweep: Sweeps
) -> None:
    row = make_row(ms=None, reason="absent", runtime=None, macs=None, metrics=None)
    report = write_latency(make_sweep(row), tmp_path)
    text = report.html.read_text(encoding="utf-8")
    assert "absent" in text
    assert "<script" not in text
    assert report.png is None
    assert not (tmp_path / "latency.png").exists()


def test_numbers_are_written_with_their_digits() -> None:
    assert [ms(s) for s in (0.000123, 0.00123, 0.0123, 0.123, 1.23)] == [
        "0.123",
        "1.23",
        "12.3",
        "123",
        "1,230",
    ]
    assert [millions(n) for n in (17_800_000, 4_090_000_000)] == ["17.8 M", "4.09 G"]
