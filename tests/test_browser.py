"""The browser that tests of pages stand on: it must see what is wrong, and always end."""

from __future__ import annotations

from pathlib import Path

import chromium
import psutil
import pytest
from chromium import Browser, BrowserError
from PIL import Image

WIDTH = 400


def test_a_page_that_fails_is_seen_to_fail(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "a page.html"
    file.write_text(
        "<p style='width: 2000px'>wide</p><img src='http://example.com/x.png'>"
        "<script>console.error('logged', 3); nothing();</script>"
    )
    page = browser.open(file, width=WIDTH)
    page.wait("document.querySelector('img').complete")
    text = "\n".join(page.errors)
    assert "logged 3" in text
    assert "nothing is not defined" in text
    assert "ERR_NAME_NOT_RESOLVED" in text  # it asked, and reached nobody
    assert page.requests == [file.as_uri(), "http://example.com/x.png"]
    assert page.evaluate("document.documentElement.scrollWidth") > WIDTH


def test_a_page_that_is_well_is_seen_to_be(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("<title>well</title><link rel=icon href='data:,'><p>one</p>")
    page = browser.open(file, width=WIDTH, height=300, dark=True, mobile=True)
    assert page.errors == []
    assert "<p>one</p>" in page.dom
    assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is True
    assert page.evaluate("Promise.resolve([1, 'two'])") == [1, "two"]
    with Image.open(page.screenshot(tmp_path / "page.png")) as image:
        assert image.format == "PNG"
    with pytest.raises(BrowserError, match="nothing is not defined"):
        page.evaluate("nothing")
    with pytest.raises(BrowserError, match="ERR_FILE_NOT_FOUND"):
        browser.open(tmp_path / "absent.html")


def test_a_page_that_hangs_is_given_up_and_the_browser_killed(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, file = tmp_path / "good.html", tmp_path / "page.html"
    good.write_text("<p>all is well</p>")
    file.write_text("<script>while (true) {}</script>")
    with Browser(browser.path) as other:
        other.open(good)  # after which it has started its processes
        process = psutil.Process(other.pid)
        monkeypatch.setattr(chromium, "SECONDS", 2.0)
        with pytest.raises(BrowserError, match="did not answer in 2 s"):
            other.open(file)
        family = [process, *process.children(recursive=True)]
        assert len(family) > 1
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
