"""The report in a real browser: what its scripts do, which reading the file does not show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from chromium import Browser, Page
from PIL import Image

from bench.latency.record import Row, Sweep
from bench.latency.sections import write_latency

Rows = Callable[..., Row]
Sweeps = Callable[..., Sweep]

PHONE = 400
CHARTS = 'document.querySelectorAll(".chart").length'
DRAWN = 'document.querySelectorAll(".chart svg .mark-symbol path").length'
ALL_DRAWN = f"""{DRAWN} && {CHARTS} === document.querySelectorAll(".chart svg").length"""
LABEL = 'document.querySelector(".chart svg .role-axis-label text").getAttribute("fill")'


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, make_row: Rows, make_sweep: Sweeps) -> Path:
    sweep = make_sweep(
        make_row(ms=4.0, runtime="torch"),
        make_row(ms=1.0, spread=0.1, precision="int8"),
        make_row(ms=1.01, spread=0.1),
        make_row(ms=8.0, batch=8, runtime="torch"),
        make_row(ms=5.0, batch=8),
        make_row(ms=None, reason="a reason that is long " * 20, runtime="ort-cuda"),
        make_row(ms=None, reason="</script><b>no</b>", runtime="tensorrt"),
    )
    return write_latency(sweep, tmp_path_factory.mktemp("a folder with spaces")).html


def open_report(browser: Browser, report: Path, **screen: int | bool) -> Page:
    page = browser.open(report, **screen)  # type: ignore[arg-type]
    page.wait(ALL_DRAWN)
    return page


def test_all_charts_are_drawn_and_nothing_is_fetched(browser: Browser, report: Path) -> None:
    page = open_report(browser, report)
    assert page.evaluate(CHARTS) == 4  # dots and latency against MACs, at batch 1 and 8
    assert page.evaluate('document.querySelectorAll("svg").length') == 4
    assert "<svg" in page.dom
    assert page.errors == []
    assert page.requests[0] == report.as_uri()
    assert [url for url in page.requests[1:] if not url.startswith("data:")] == []


@pytest.mark.parametrize("width", [PHONE, 1280])
def test_no_page_is_wider_than_its_screen(browser: Browser, report: Path, width: int) -> None:
    page = open_report(browser, report, width=width, mobile=width == PHONE)
    assert page.evaluate("innerWidth") == width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for box in ("figure", ".chart svg"):
        wide = f'[...document.querySelectorAll("{box}")].map(e => e.getBoundingClientRect().right)'
        assert max(page.evaluate(wide)) <= width


def test_dark_and_light_follow_the_user(browser: Browser, report: Path, tmp_path: Path) -> None:
    shots = {}
    for dark in (False, True):
        page = open_report(browser, report, dark=dark)
        with Image.open(page.screenshot(tmp_path / f"{dark}.png")) as image:
            assert image.width == 1280
            assert image.height == page.evaluate("document.documentElement.scrollHeight")
            shots[dark] = image.convert("L").resize((1, 1)).getpixel((0, 0))
    assert shots[True] < 64 < 192 < shots[False]
    assert page.evaluate(LABEL) == "#e6e9ed"
    light = {"name": "prefers-color-scheme", "value": "light"}
    page.call("Emulation.setEmulatedMedia", features=[light])  # the user changes their mind
    page.wait(f'{LABEL} === "#1b1f24"')
    assert page.errors == []
