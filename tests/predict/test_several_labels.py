"""Rows of several labels, and of no class where the best one is unsure."""

from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artifact.records import Abstention
from predict.classifier import Classifier

Put = Callable[..., Path]
Command = Callable[..., subprocess.CompletedProcess[str]]
MakeArtifact = Callable[..., Path]

ABSTENTION = Abstention(threshold=0.9, wanted=0.95, precision=0.96, coverage=0.5, images=40)


@pytest.fixture
def photos(put: Put) -> str:
    for name in ("black", "red"):
        put(f"photos/{name}.png", name)
    put("photos/text.png", b"text")
    return "photos"


@pytest.fixture
def several(make_artifact: MakeArtifact) -> str:
    return str(make_artifact(task="multi", thresholds=(0.9, 0.5, 0.4)))


@pytest.fixture
def unsure(make_artifact: MakeArtifact) -> str:
    return str(make_artifact(abstention=ABSTENTION))


def rows_of(path: str) -> list[dict[str, Any]]:
    text = Path(path).read_text()
    if path.endswith(".jsonl"):
        return [json.loads(line) for line in text.splitlines()]
    return list(csv.DictReader(text.splitlines()))


def test_rows_of_several_labels(command: Command, several: str, photos: str) -> None:
    assert command("predict", several, photos, "--out", "rows.csv").returncode == 0
    black, red, text = rows_of("rows.csv")
    assert list(black) == ["path", "labels", "scores", "error"]
    assert (black["labels"], red["labels"], text["labels"]) == ("blue", "red|blue", "")
    assert [float(score) for score in red["scores"].split("|")] == pytest.approx([1, 0.5], abs=1e-5)
    command("predict", several, photos, "--out", "rows.jsonl", "--top-k", "1")
    black, red, text = rows_of("rows.jsonl")
    assert (red["labels"], text["labels"]) == (["red", "blue"], [])
    assert [each["threshold"] for each in red["predictions"]] == [0.9, 0.4]
    command("predict", several, photos, "--copy-to", "sorted")
    copied = {str(path.relative_to("sorted")) for path in Path("sorted").rglob("*.png")}
    assert copied == {"red/red.png", "blue/red.png", "blue/black.png"}


def test_parquet_has_lists_of_several_labels(command: Command, several: str, photos: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    command("predict", several, photos, "--out", "rows.parquet")
    black, red, text = parquet.read_table("rows.parquet").to_pylist()
    assert (black["labels"], red["labels"], text["labels"]) == (["blue"], ["red", "blue"], None)
    assert red["scores"] == pytest.approx([1, 0.5], abs=1e-5)


def test_rows_without_a_class_where_it_is_unsure(
    command: Command, unsure: str, photos: str
) -> None:
    command("predict", unsure, photos, "--out", "rows.csv", "--top-k", "1")
    assert rows_of("rows.csv")[0]["label"] == "red"  # off by default
    command("predict", unsure, photos, "--out", "new.csv", "--top-k", "1", "--abstain")
    black, red, text = rows_of("new.csv")
    assert list(black) == ["path", "label", "score", "reason", "error"]
    assert (black["label"], black["reason"]) == ("", "unsure")
    assert (red["label"], red["reason"], text["reason"]) == ("red", "", "")
    assert float(black["score"]) == pytest.approx(1 / 3)
    command("predict", unsure, photos, "--out", "rows.jsonl", "--abstain")
    black, red, text = rows_of("rows.jsonl")
    assert (black["label"], black["reason"]) == (None, "unsure")
    assert (red["label"], red["reason"], text["label"]) == ("red", None, None)


def test_an_artifact_that_cannot_abstain_is_refused(
    command: Command, several: str, photos: str
) -> None:
    ran = command("predict", several, photos, "--abstain")
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert "leave out --abstain" in ran.stderr


def test_a_prediction_in_python_has_its_labels(several: str, unsure: str, photos: str) -> None:
    with Classifier.open(unsure, abstain=True) as classify:
        assert [each.labels for each in classify([f"{photos}/red.png", f"{photos}/black.png"])] == [
            ("red",),
            (),
        ]
