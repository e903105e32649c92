"""The page by keyboard, on a phone, in the dark."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
from chromium import Browser, Page
from live_page import ANSWERED, FOCUSED, READY, Site, bars, give, opened, press, served
from PIL import Image

from artifact.artifact import Artifact

Encoded = Callable[..., bytes]

TWO_DONE = "document.getElementById('progress').textContent === '2 of 2'"
RING = """[document.activeElement, document.activeElement.parentElement]
    .some((e) => getComputedStyle(e).outlineStyle === "solid")"""
RIGHT = """Math.max(...[...document.querySelectorAll("body *")]
    .filter((e) => e.checkVisibility()).map((e) => e.getBoundingClientRect().right))"""


def test_everything_can_be_reached_and_worked_by_keyboard(
    browser: Browser, site: Site, encoded: Encoded
) -> None:
    page = opened(browser, site)
    give(page, "drop", one=encoded("red"), two=encoded("blue"))
    page.wait(TWO_DONE)
    stops = []
    for _ in range(8):
        press(page, "Tab")
        stops.append(page.evaluate("document.activeElement.innerText || " + FOCUSED))
        assert page.evaluate(RING), stops[-1]
        if stops[-1] == "3":  # of top-k
            press(page, "ArrowLeft")
            assert [label for label, _ in bars(page)] == ["red"]
        if stops[-1].startswith("blue"):
            press(page, "Enter")
            assert bars(page)[0][0] == "blue"
    assert stops[:3] == ["Choose images", "Use the camera", "3"]
    assert stops[3].startswith("as chosen")
    assert stops[4] == "Save as CSV"
    assert [stop.partition(",")[0] for stop in stops[5:7]] == ["red", "blue"]
    assert stops[7] == "OpenAPI"


def test_enter_opens_the_file_dialog(browser: Browser, site: Site) -> None:
    page = opened(browser, site)
    page.call("Page.setInterceptFileChooserDialog", enabled=True)
    page.evaluate(
        "document.getElementById('files').addEventListener('click', () => (window.asked = true))"
    )
    press(page, "Tab")
    press(page, "Enter")
    page.wait("window.asked === true")


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_no_screen_needs_to_be_scrolled_sideways(
    browser: Browser, site: Site, encoded: Encoded, width: int
) -> None:
    page = opened(browser, site, width=width, mobile=width < 768)
    name = "a_long_name_without_a_space" * 5
    give(page, "drop", **{name: encoded("red"), "two": b"no image"})
    page.wait(TWO_DONE)
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.evaluate("document.querySelectorAll('#list button')[1].click()")
    assert page.evaluate(RIGHT) <= width


def test_result_is_beside_the_picture_where_there_is_room(browser: Browser, site: Site) -> None:
    place = "((e) => [e.left, e.top])(document.getElementById('{}').getBoundingClientRect())"
    for width, beside in ((1280, True), (390, False)):
        page = opened(browser, site, width=width, mobile=not beside)
        picture, result = (page.evaluate(place.format(name)) for name in ("stage", "result"))
        assert (result[0] > picture[0]) is beside
        assert (result[1] > picture[1]) is not beside


def test_fingers_find_their_targets(browser: Browser, site: Site, encoded: Encoded) -> None:
    page = opened(browser, site, width=390, height=844, mobile=True)
    page.call("Emulation.setTouchEmulationEnabled", enabled=True)
    page.evaluate("window.old = true")
    page.call("Page.reload")
    page.wait(f"!window.old && document.body && matchMedia('(pointer: coarse)').matches && {READY}")
    give(page, "drop", one=encoded("red"), two=encoded("blue"))
    page.wait(TWO_DONE)
    small = """[...document.querySelectorAll("button, a, label, input:not([type=radio])")]
        .filter((e) => e.checkVisibility())
        .map((e) => [e.innerText, e.offsetWidth, e.offsetHeight])
        .filter(([, width, height]) => width < 44 || height < 44)"""
    assert page.evaluate(small) == []
    page.evaluate(
        "document.getElementById('capture').addEventListener('click', () => (window.asked = true))"
    )
    page.call("Page.setInterceptFileChooserDialog", enabled=True)
    page.evaluate("document.getElementById('camera').click()")
    assert page.evaluate("window.asked") is True  # the phone's own camera


def test_nothing_moves_when_the_result_comes(
    browser: Browser, site: Site, encoded: Encoded
) -> None:
    page = opened(browser, site)
    page.evaluate(
        """window.moved = [];
        new PerformanceObserver((list) => moved.push(...list.getEntries().map((e) => e.value)))
            .observe({ type: "layout-shift", buffered: true });"""
    )
    give(page, "drop", image=encoded((100, 104, 96)))
    page.wait(ANSWERED)
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 100)))")
    assert sum(page.evaluate("moved")) < 0.01
    page.evaluate(
        "document.body.prepend(Object.assign(document.createElement('p'), {innerText: 'x'}))"
    )
    page.wait("moved.some((value) => value > 0.01)")  # it would have been seen


CONTRAST = """(() => {
    const style = getComputedStyle(document.documentElement);
    const light = (name) => {
        const hex = style.getPropertyValue(name).trim().slice(1).match(/../g);
        const [r, g, b] = hex.map((each) => parseInt(each, 16) / 255)
            .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    return (over, under) => {
        const [a, b] = [light(over), light(under)];
        return Math.max(a, b) / Math.min(a, b);
    };
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_colours_follow_the_user_and_can_be_read(
    browser: Browser, site: Site, tmp_path: Path, dark: bool
) -> None:
    page = opened(browser, site, dark=dark)
    with Image.open(page.screenshot(tmp_path / "page.png")) as image:
        brightness = image.convert("L").resize((1, 1)).getpixel((0, 0))
    assert brightness < 64 if dark else brightness > 192
    pairs = [
        (over, under)
        for over in ("ink", "quiet", "accent", "error")
        for under in ("paper", "panel")
    ]
    for over, under in [*pairs, ("on-accent", "accent"), ("accent", "track")]:
        contrast = page.evaluate(f"{CONTRAST}('--{over}', '--{under}')")
        assert contrast >= 4.5, (over, under)  # WCAG 2.2, 1.4.3
    for over, under in (("edge", "paper"), ("inference", "track")):
        assert page.evaluate(f"{CONTRAST}('--{over}', '--{under}')") >= 3, over  # 1.4.11


AXE = files("axe_core_python") / "axe.min.js"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    browser: Browser, artifact_path: Path, encoded: Encoded, scheme: str, tmp_path: Path
) -> None:
    shutil.copytree(artifact_path, tmp_path / "second" / "onnx-fp32")
    models = (str(tmp_path / "second"),)
    with served(Artifact.load(artifact_path), models=models) as site:
        page = opened(browser, site)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        page.call("Emulation.setEmulatedMedia", features=features)
        page.evaluate(AXE.read_text() + "; 0")
        assert violations(page) == []
        give(page, "drop", one=encoded("red"), two=b"no image", three=encoded("blue"))
        page.wait("document.getElementById('progress').textContent === '3 of 3'")
        assert violations(page) == []
        page.evaluate("document.querySelectorAll('#list button')[1].click()")  # an error
        page.evaluate("document.getElementById('shooting').hidden = false")  # as with a camera
        assert violations(page) == []


def violations(page: Page) -> list[str]:
    found = page.evaluate(
        """(async () => {
            for (const each of document.getAnimations()) each.cancel(); // colours as they stay
            const { violations } = await axe.run();
            return violations.map(({ id, nodes }) => `${id}: ${nodes.map((n) => n.html)}`);
        })()"""
    )
    return list(found)
