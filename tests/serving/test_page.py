"""The page for people, in a real browser, before a real server."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from chromium import Browser, Page
from live_page import (
    ANSWERED,
    DENIED,
    FAILED,
    FOCUSED,
    MAX_BYTES,
    READY,
    Site,
    bars,
    choose,
    give,
    opened,
    press,
    seen,
    served,
)

from artifact.answering import Answering
from artifact.artifact import Artifact
from core.image_types import list_suffixes
from core.preprocess import TYPES
from predict.classifier import Prediction
from predict.pipeline import Row
from predict.sinks import Form, columns, write_csv

Encoded = Callable[..., bytes]

HOSTILE = "<img src=x onerror='window.broken = 1'><script>window.broken = 2</script>"

PREDICT = "?top_k="  # in the address of a request that sends an image


@pytest.fixture
def page(browser: Browser, site: Site) -> Page:
    return opened(browser, site)


def test_a_chosen_image_is_seen_with_its_result(
    page: Page, site: Site, encoded: Encoded, tmp_path: Path
) -> None:
    assert bars(page) == []
    file = tmp_path / "a leaf.png"
    file.write_bytes(encoded((100, 104, 96)))
    choose(page, file)
    page.wait(ANSWERED)
    # The softmax of 0.05 times each channel.
    assert bars(page) == [("green", "40.2\xa0%"), ("red", "32.9\xa0%"), ("blue", "26.9\xa0%")]
    widths = "[...document.querySelectorAll('.fill')].map((e) => parseFloat(e.style.width))"
    assert page.evaluate(widths) == pytest.approx([40.176, 32.893, 26.931], abs=0.01)
    facts = [seen(page, name) for name in ("model", "precision", "runtime", "top1")]
    assert facts == ["channels", "fp32", "ort-cpu", "75.0\xa0%"]
    page.wait("document.getElementById('photo').naturalWidth === 40")
    page.wait("document.getElementById('caption').textContent.includes('40 \xd7 50')")
    assert "a leaf.png" in seen(page, "caption")
    assert seen(page, "status").startswith("a leaf.png: green, 40.2")
    assert page.errors == []
    assert all(url.startswith((site.url, "blob:", "data:")) for url in page.requests)


def test_the_types_are_those_of_the_server(page: Page) -> None:
    assert seen(page, "caption") == f"{', '.join(TYPES)}, up to 100\xa0kB"
    chosen = page.evaluate("document.getElementById('files').accept").split(",")
    assert chosen == ["image/*", *list_suffixes()]


def test_timings_add_up(page: Page, encoded: Encoded) -> None:
    give(page, "drop", image=encoded("red"))
    page.wait(ANSWERED)
    names = "[...document.querySelectorAll('#stages dt')].map((e) => e.textContent)"
    values = "[...document.querySelectorAll('#stages dd')].map((e) => parseFloat(e.textContent))"
    widths = "[...document.querySelectorAll('#stack div')].map((e) => e.clientWidth)"
    assert page.evaluate(names) == ["decode", "resize", "queue", "inference"]
    stages, parts = page.evaluate(values), page.evaluate(widths)
    server = float(seen(page, "server").split()[0])
    assert sum(stages) == pytest.approx(server, abs=0.06)  # rounded for reading
    assert float(seen(page, "round-trip").split()[0]) >= server
    gaps = 2 * (len(parts) - 1)
    whole = page.evaluate("document.getElementById('stack').clientWidth")
    assert sum(parts) == pytest.approx(whole - gaps, abs=len(parts))
    assert parts[3] / sum(parts) == pytest.approx(stages[3] / sum(stages), abs=0.1)


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_dropped_or_pasted_image_is_taken(page: Page, encoded: Encoded, event: str) -> None:
    give(page, event, image=encoded("blue"))
    page.wait(ANSWERED)
    assert bars(page)[0] == ("blue", "> 99.9\xa0%")
    assert bars(page)[1][1] == "< 0.1\xa0%"


def test_what_is_no_file_is_answered_with_advice(page: Page) -> None:
    give(page, "paste")  # text, say: not meant for us
    assert seen(page, "notice") == ""
    give(page, "drop")
    assert "save the image" in seen(page, "notice")


def test_an_error_takes_the_place_of_the_last_result(page: Page, encoded: Encoded) -> None:
    give(page, "drop", good=encoded("red"))
    page.wait(ANSWERED)
    give(page, "drop", bad=b"no image")
    page.wait(FAILED)
    assert "not a JPEG" in seen(page, "failure")
    assert page.evaluate("document.getElementById('failure').getAttribute('role')") == "alert"
    assert bars(page) == []
    assert seen(page, "stages") == seen(page, "status") == ""
    page.wait("document.getElementById('no-preview').checkVisibility()")
    give(page, "drop", good=encoded("red"))
    page.wait(ANSWERED)
    assert seen(page, "failure") == seen(page, "no-preview") == ""
    assert bars(page)[0][0] == "red"


def test_too_large_an_image_is_told_before_it_is_sent(page: Page, encoded: Encoded) -> None:
    give(page, "drop", large=encoded().ljust(MAX_BYTES + 1, b"\0"))
    page.wait(FAILED)
    assert seen(page, "failure") == "large has 101\xa0kB; this server takes up to 100\xa0kB."
    assert not [url for url in page.requests if PREDICT in url]
    give(page, "drop", fits=encoded().ljust(MAX_BYTES, b"\0"))
    page.wait(ANSWERED)


def test_several_images_are_a_list(page: Page, encoded: Encoded) -> None:
    give(page, "drop", one=encoded("red"), two=b"no image", three=encoded("blue"))
    page.wait("document.getElementById('progress').textContent === '3 of 3'")
    rows = "[...document.querySelectorAll('#list .label')].map((e) => e.innerText)"
    assert page.evaluate(rows) == ["red, > 99.9\xa0%", "failed", "blue, > 99.9\xa0%"]
    assert seen(page, "status") == "2 images classified, 1 failed"
    assert bars(page)[0][0] == "red"
    page.evaluate("document.querySelectorAll('#list button')[1].click()")
    assert "not a JPEG" in seen(page, "failure")
    assert bars(page) == []
    page.evaluate("document.querySelectorAll('#list button')[2].click()")
    assert seen(page, "failure") == ""
    assert bars(page)[0][0] == "blue"
    page.wait("document.querySelectorAll('#list img').length === 2")  # no sign of a broken one
    current = "[...document.querySelectorAll('#list button')].map((e) => e.ariaCurrent)"
    assert page.evaluate(current) == [None, None, "true"]
    give(page, "drop", alone=encoded("red"))
    page.wait(ANSWERED)
    assert seen(page, "images") == ""


LABELS = "[...document.querySelectorAll('#list .label')].map((e) => e.innerText)"


def order(page: Page, value: str) -> list[str]:
    """Chooses an order of the gallery, and returns the labels in it."""
    page.evaluate(
        f"(() => {{ const select = document.getElementById('order'); select.value = '{value}';"
        "select.dispatchEvent(new Event('change', { bubbles: true })); })()"
    )
    return list(page.evaluate(LABELS))


def test_a_gallery_is_sorted_by_score_and_saved_as_csv(page: Page, encoded: Encoded) -> None:
    faint, clear = encoded((100, 104, 96)), encoded("blue")
    give(page, "drop", **{"a,faint": faint, "broken": b"no image", "=clear()": clear})
    page.wait("document.getElementById('progress').textContent === '3 of 3'")
    chosen = ["green, 40.2\xa0%", "failed", "blue, > 99.9\xa0%"]
    assert page.evaluate(LABELS) == chosen
    assert order(page, "highest") == [chosen[2], chosen[0], "failed"]
    assert order(page, "lowest") == [chosen[0], chosen[2], "failed"]
    assert order(page, "chosen") == chosen
    text = """(async () => {
        let saved;
        const made = URL.createObjectURL;
        URL.createObjectURL = (blob) => { saved = blob.text(); return made(blob); };
        HTMLAnchorElement.prototype.click = function () { window.download = this.download; };
        document.getElementById("save").click();
        return await saved;
    })()"""
    header, first, second, third = csv.reader(io.StringIO(page.evaluate(text)))
    assert page.evaluate("window.download") == "predictions.csv"
    assert header == columns(Form(3, Answering()))  # as those of pocketnets predict
    assert first[:2] == ["a,faint", "green"]
    assert float(first[2]) == pytest.approx(0.40176, abs=1e-4)
    assert first[-1] == ""
    assert second[0] == "broken"
    assert second[1:-1] == [""] * 6
    assert "not a JPEG" in second[-1]
    assert third[:2] == ["'=clear()", "blue"]  # a spreadsheet would compute it


@pytest.mark.parametrize(
    "answering",
    [
        Answering(),
        Answering(least=0.6),
        Answering(task="multi", thresholds=(0.5, 0.5)),
    ],
    ids=["one", "none", "several"],
)
def test_rows_are_those_of_predict(page: Page, answering: Answering) -> None:
    form, names = Form(2, answering), ("cat", "dog")
    rows, images = [], []
    for path, logits in (("a.png", [2, 1.5]), ("b.png", [0.25, 0]), ("c,d.png", [-1, 3])):
        scores, chosen, shown = answering.answer(np.float32(logits), 2)
        top = tuple((names[i], float(scores[i])) for i in shown)
        labels = tuple(names[i] for i in chosen)
        best = {"label": top[0][0], "index": shown[0], "score": top[0][1]}
        rows.append(
            Row(path=path, prediction=Prediction(**best, top=top, indices=shown, labels=labels))
        )
        answer = {"predictions": [{"label": label, "score": score} for label, score in top]}
        if form.several:
            answer["labels"] = labels
        elif form.abstains:
            answer |= {"label": labels[0]} if labels else {"label": None, "reason": "unsure"}
        images.append({"file": {"name": path}, "answer": answer})
    rows.append(Row(path="e.png", error="broken"))
    images.append({"file": {"name": "e.png"}, "failure": {"message": "broken"}})
    file = io.BytesIO()
    write_csv(file, rows, form)
    saved = page.evaluate(
        f"import('/page/gallery.js').then((all) => all.csv({json.dumps(images)}))"
    )
    shown, ours = (
        list(csv.reader(io.StringIO(text))) for text in (saved, file.getvalue().decode())
    )
    assert shown == ours


def test_a_later_choice_ends_an_earlier_one(page: Page, encoded: Encoded) -> None:
    page.evaluate(
        """addEventListener("drop", ({ dataTransfer: { files } }) => {
            const transfer = new DataTransfer();
            transfer.items.add(files[5]);
            dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, cancelable: true }));
        }, { once: true })"""
    )
    images = {f"image{i}": encoded("red") for i in range(5)}
    give(page, "drop", **images, last=encoded("blue"))
    page.wait(ANSWERED)
    page.evaluate("new Promise((done) => setTimeout(done, 200))")  # for others, if there were any
    assert bars(page)[0][0] == "blue"
    assert sum(PREDICT in url for url in page.requests) == 1


def test_a_server_that_is_away_can_be_tried_again(page: Page, site: Site, encoded: Encoded) -> None:
    site.broken = True
    give(page, "drop", image=encoded("red"))
    page.wait(FAILED)
    assert seen(page, "failure") == "The server answered with status 502."
    page.call("Network.emulateNetworkConditions", offline=True, latency=0,
              downloadThroughput=-1, uploadThroughput=-1)  # fmt: skip
    page.evaluate("document.getElementById('again').click()")
    page.wait("document.getElementById('failure').textContent.includes('cannot be reached')")
    page.call("Network.emulateNetworkConditions", offline=False, latency=0,
              downloadThroughput=-1, uploadThroughput=-1)  # fmt: skip
    site.broken = False
    page.evaluate("document.getElementById('again').click()")
    page.wait(ANSWERED)
    assert seen(page, "failure") == ""


def test_a_token_is_asked_for_and_kept_in_the_tab(
    browser: Browser, site: Site, encoded: Encoded
) -> None:
    site.token = "a secret"
    page = browser.open(site.url)
    page.wait(FAILED)
    assert seen(page, "failure") == DENIED
    page.wait(f"({FOCUSED}) === 'token'")
    for attempt in ("wrong", "a secret"):
        page.call("Input.insertText", text=attempt)
        press(page, "Enter")
        page.wait(READY if attempt == site.token else f"({FOCUSED}) === 'token' && {FAILED}")
    assert not page.evaluate("document.getElementById('access').checkVisibility()")
    give(page, "drop", image=encoded("red"))
    page.wait(ANSWERED)
    assert page.evaluate("Object.values(sessionStorage)") == [site.token]
    assert page.evaluate("localStorage.length + document.cookie.length") == 0
    site.token = "another"
    give(page, "drop", one=encoded("red"), two=encoded("blue"))
    page.wait(FAILED)
    page.wait(f"({FOCUSED}) === 'token'")
    page.call("Input.insertText", text=site.token)
    press(page, "Enter")
    page.wait("document.getElementById('progress').textContent === '2 of 2'")
    assert bars(page)[0][0] == "red"


def test_a_label_is_text_whatever_it_holds(
    browser: Browser, make_artifact: Callable[..., Path], encoded: Encoded
) -> None:
    path = make_artifact(labels=(HOSTILE, "green", "blue"), model=HOSTILE)
    with served(Artifact.load(path)) as site:
        page = opened(browser, site, width=320, mobile=True)
        give(page, "drop", **{HOSTILE: encoded("red"), "two": encoded("red")})
        page.wait("document.getElementById('progress').textContent === '2 of 2'")
        assert bars(page)[0][0] == HOSTILE
        assert seen(page, "model") == HOSTILE
        assert page.evaluate("document.querySelector('#list .label').innerText").startswith(HOSTILE)
        assert page.evaluate("document.querySelectorAll('[onerror], body script').length") == 0
        assert page.evaluate("window.broken") is None
        assert page.evaluate("document.documentElement.scrollWidth") == 320
        assert page.errors == []
        written = "document.getElementById('model').innerHTML = '<b>x</b>'"
        with pytest.raises(Exception, match="TrustedHTML"):
            page.evaluate(written)


def set_camera(page: Page) -> None:
    """Gives the page a camera that sees lime green."""
    page.evaluate(
        """navigator.mediaDevices.getUserMedia = async () => {
            const canvas = document.createElement("canvas");
            const context = canvas.getContext("2d");
            const paint = () => {
                context.fillStyle = "lime";
                context.fillRect(0, 0, canvas.width, canvas.height);
            };
            paint();  // or the first picture is black
            setInterval(paint, 20);
            return (window.stream = canvas.captureStream());
        }"""
    )


def test_a_picture_from_the_camera(page: Page) -> None:
    set_camera(page)
    page.evaluate("document.getElementById('camera').click()")
    page.wait(f"({FOCUSED}) === 'shoot' && document.getElementById('viewfinder').readyState >= 2")
    press(page, "Escape")
    assert page.evaluate(FOCUSED) == "camera"
    assert page.evaluate("stream.active") is False
    press(page, "Enter")
    page.wait(f"({FOCUSED}) === 'shoot' && document.getElementById('viewfinder').readyState >= 2")
    page.wait(  # on a busy machine the first frames are black
        """(() => {
            const context = document.createElement("canvas").getContext("2d");
            context.drawImage(document.getElementById("viewfinder"), 0, 0, 1, 1);
            return context.getImageData(0, 0, 1, 1).data[1] > 200;
        })()"""
    )
    press(page, "Enter")
    page.wait(ANSWERED)
    assert bars(page)[0][0] == "green"
    assert seen(page, "caption").startswith("camera.jpg")
    assert page.evaluate("stream.active") is False
    assert page.errors == []


def test_what_the_camera_sees_is_classified_all_the_time(page: Page) -> None:
    set_camera(page)
    page.evaluate(  # counts the requests under way, and the most at once
        """(() => {
            const plain = window.fetch;
            Object.assign(window, { asked: 0, under: 0, most: 0 });
            window.fetch = async (...args) => {
                window.most = Math.max(window.most, ++window.under);
                window.asked += 1;
                try { return await plain(...args); } finally { window.under -= 1; }
            };
        })()"""
    )
    page.evaluate("document.getElementById('camera').click()")
    page.wait(f"({FOCUSED}) === 'shoot' && document.getElementById('viewfinder').readyState >= 2")
    page.evaluate("document.getElementById('live').click()")
    page.wait("window.asked > 5 && document.querySelector('#bars .label')?.textContent === 'green'")
    page.wait("/^[0-9]+[.][0-9] frames[/]s$/.test(document.getElementById('rate').textContent)")
    assert page.evaluate("window.most") == 1  # frames are dropped, never queued
    assert page.evaluate("document.getElementById('viewfinder').checkVisibility()")
    page.evaluate("document.getElementById('live').click()")
    page.wait("window.under === 0")
    page.wait(ANSWERED)  # the last frame stays as a picture
    assert seen(page, "caption").startswith("camera.jpg")
    assert bars(page)[0][0] == "green"
    assert page.evaluate("stream.active") is False
    asked = page.evaluate("window.asked")
    page.evaluate("new Promise((done) => setTimeout(done, 100))")
    assert page.evaluate("window.asked") == asked
    assert page.errors == []


def test_the_camera_stops_at_an_error_and_tells_it(page: Page, site: Site) -> None:
    set_camera(page)
    page.evaluate("document.getElementById('camera').click()")
    page.wait(f"({FOCUSED}) === 'shoot' && document.getElementById('viewfinder').readyState >= 2")
    site.broken = True
    page.evaluate("document.getElementById('live').click()")
    page.wait(FAILED)
    assert "502" in seen(page, "failure")
    page.wait("document.getElementById('live').textContent === 'Classify all the time'")
    site.broken = False
    press(page, "Escape")
    assert page.evaluate("stream.active") is False
    assert seen(page, "failure") == ""
    page.errors.clear()  # the 502


def test_a_camera_that_is_not_there_is_told(page: Page) -> None:
    page.evaluate("document.getElementById('camera').click()")  # this machine has none
    page.wait("document.getElementById('notice').textContent !== ''")
    assert "camera" in seen(page, "notice")


def test_a_model_can_be_chosen(
    browser: Browser,
    artifact_path: Path,
    encoded: Encoded,
    save_artifact: Callable[..., Path],
    tmp_path: Path,
) -> None:
    soft = save_artifact(tmp_path / "soft" / "onnx-fp32", scale=0.001)
    with served(Artifact.load(artifact_path), models=(str(soft),)) as site:
        page = opened(browser, site)
        give(page, "drop", image=encoded("red"))
        page.wait(ANSWERED)
        before = bars(page)[0]
        assert seen(page, "address").endswith("/predict")
        names = "[...document.querySelectorAll('#models option')].map((each) => each.value)"
        assert page.evaluate(names) == ["channels-colours", "soft"]
        page.evaluate(
            "(() => { const select = document.getElementById('models'); select.value = 'soft';"
            "select.dispatchEvent(new Event('change', { bubbles: true })); })()"
        )
        page.wait("document.getElementById('address').textContent.endsWith('/models/soft/predict')")
        page.wait(ANSWERED)
        after = bars(page)[0]
        assert (before[0], after[0]) == ("red", "red")
        assert "99.9" in before[1]
        assert float(after[1].rstrip("\xa0%")) < 50
        assert page.errors == []
