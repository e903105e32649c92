"""Answers of several labels, and of none where the best is unsure: over HTTP, and in the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from chromium import Browser
from live_page import ANSWERED, bars, give, opened, seen, served
from starlette.testclient import TestClient

from artifact.artifact import Artifact
from artifact.records import Abstention, Metrics
from core.errors import UserError
from serving.app import create_app
from serving.models import Models
from serving.predictor import Predictor
from serving.repository import first_listing
from serving.settings import Settings

Encoded = Callable[..., bytes]
MakeArtifact = Callable[..., Path]

ABSTENTION = Abstention(threshold=0.9, wanted=0.95, precision=0.96, coverage=0.5, images=40)


@pytest.fixture
def several(make_artifact: MakeArtifact) -> Artifact:
    """Returns an artifact of three labels: the sigmoid of 0.05 times the mean of each channel."""
    metrics = Metrics(
        top1=0.5, torch_top1=0.5, images=4, runtime="ort-cpu", mean_ap=0.75, torch_mean_ap=0.75
    )
    thresholds = (0.9, 0.5, 0.4)
    return Artifact.load(make_artifact(task="multi", thresholds=thresholds, metrics=metrics))


@pytest.fixture
def unsure(make_artifact: MakeArtifact) -> Artifact:
    return Artifact.load(make_artifact(abstention=ABSTENTION))


def ask(url: str, image: bytes, query: str = "") -> dict[str, Any]:
    """Returns the answer, which holds to the document."""
    response = httpx.post(f"{url}predict{query}", content=image)
    assert response.status_code == 200
    document = httpx.get(f"{url}openapi.json").json()
    described = document["paths"]["/predict"]["post"]["responses"]["200"]
    schema = described["content"]["application/json"]["schema"]
    schema = {**schema, "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(response.json())
    found: dict[str, Any] = response.json()
    return found


def test_an_answer_has_each_label_above_its_threshold(several: Artifact, encoded: Encoded) -> None:
    with served(several) as site:
        answer = ask(site.url, encoded("red"), "?top_k=1")
        assert answer["labels"] == ["red", "blue"]
        assert [each["label"] for each in answer["predictions"]] == ["red", "blue"]
        scores = [each["score"] for each in answer["predictions"]]
        assert scores == pytest.approx([1, 0.5], abs=1e-5)  # they do not sum to 1
        assert [each["threshold"] for each in answer["predictions"]] == [0.9, 0.4]
        assert len(ask(site.url, encoded("red"))["predictions"]) == 3
        assert ask(site.url, encoded("black"))["labels"] == ["blue"]
        batch = httpx.post(
            f"{site.url}predict_batch", files=[("image", ("a.png", encoded("lime")))]
        )
        assert batch.json()["results"][0]["labels"] == ["green", "blue"]
        facts = httpx.get(f"{site.url}model").json()
        assert (facts["task"], facts["thresholds"]) == ("multi", [0.9, 0.5, 0.4])
        said = httpx.get(f"{site.url}openapi.json").json()["info"]["description"]
        assert "do not sum to 1" in said


def test_an_unsure_answer_is_none_where_that_is_asked_for(
    unsure: Artifact, encoded: Encoded
) -> None:
    with served(unsure) as site:
        assert not {"label", "labels", "reason"} & ask(site.url, encoded("black")).keys()
    with served(unsure, abstain=True) as site:
        answer = ask(site.url, encoded("black"))
        assert (answer["label"], answer["reason"]) == (None, "unsure")
        assert answer["predictions"][0]["score"] == pytest.approx(1 / 3)
        sure = ask(site.url, encoded("blue"))
        assert sure["label"] == "blue"
        assert "reason" not in sure


def test_what_cannot_abstain_is_refused(several: Artifact, artifact_path: Path) -> None:
    for artifact in (several, Artifact.load(artifact_path)):
        with pytest.raises(UserError, match="POCKETNETS_ABSTAIN"):
            Predictor(Settings(artifact=artifact.path, abstain=True), artifact)


def test_of_several_models_those_abstain_that_have_a_threshold(
    save_artifact: MakeArtifact,
    tmp_path: Path,
    encoded: Encoded,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_artifact(tmp_path / "sure" / "onnx-fp32")
    artifact = save_artifact(tmp_path / "wary" / "onnx-fp32", abstention=ABSTENTION)
    settings = Settings(artifact=artifact, repository=tmp_path, abstain=True, threads=1)
    with Models(settings, first_listing(settings)) as models:
        client = TestClient(create_app(models))
        told, always = (
            client.post(f"/models/{name}/predict", content=encoded("black")).json()
            for name in ("wary", "sure")
        )
    assert (told["label"], told["reason"]) == (None, "unsure")
    assert not {"label", "reason"} & always.keys()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sure:onnx-fp32 ")
    lone = Settings(artifact=artifact, abstain=True, threads=1, token="s3cret")
    with Models(lone, first_listing(lone)) as models:
        save_artifact(artifact)  # without a threshold
        client = TestClient(create_app(models), headers={"authorization": "Bearer s3cret"})
        assert client.post("/models/wary/load").status_code == 409
        assert client.post("/predict", content=encoded("black")).json()["label"] is None
    alone = Settings(artifact=tmp_path / "sure" / "onnx-fp32", abstain=True)
    with pytest.raises(UserError, match="POCKETNETS_ABSTAIN"):
        first_listing(alone)


def test_the_page_shows_several_labels(
    browser: Browser, several: Artifact, encoded: Encoded
) -> None:
    with served(several) as site:
        page = opened(browser, site)
        assert (seen(page, "figure"), seen(page, "top1")) == ("mAP", "75.0\xa0%")
        give(page, "drop", leaf=encoded("red"))
        page.wait(ANSWERED)
        assert [label for label, _ in bars(page)] == ["red", "green", "blue"]
        above = "[...document.querySelectorAll('#bars .above .label')].map((e) => e.innerText)"
        assert page.evaluate(above) == ["red", "blue"]
        marks = "[...document.querySelectorAll('.mark')].map((e) => parseFloat(e.style.left))"
        assert page.evaluate(marks) == pytest.approx([90, 50, 40])
        assert seen(page, "status") == "leaf: red, blue"
        assert seen(page, "verdict").startswith("The image has 2 labels")
        assert page.errors == []


def test_the_page_shows_an_unsure_answer(
    browser: Browser, unsure: Artifact, encoded: Encoded
) -> None:
    with served(unsure, abstain=True) as site:
        page = opened(browser, site)
        give(page, "drop", leaf=encoded("black"))
        page.wait(ANSWERED)
        assert seen(page, "verdict").startswith("Unsure")
        assert seen(page, "status") == "leaf: unsure"
        give(page, "drop", leaf=encoded("blue"))
        page.wait(f"{ANSWERED} && document.getElementById('verdict').hidden")
        assert seen(page, "status").startswith("leaf: blue")
