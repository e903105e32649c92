"""Artifacts of several labels, and those that may abstain, on labelled images."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from several_labels import write_csv
from sklearn.metrics import average_precision_score, f1_score

from artifact.artifact import Artifact
from artifact.records import Abstention
from artifact.scores import sigmoid
from core.errors import UserError
from predict.evaluate import Evaluate, evaluate
from predict.evaluation import Evaluation
from predict.evaluation_report import evaluation_report
from predict.several import SeveralEvaluation
from predict.several_report import several_report
from training.options import FolderLayout

MakeArtifact = Callable[..., Path]

NAMES = ("red", "green", "blue")  # labels of the tiny artifact, whose logits are 0.05 times a mean
THRESHOLDS = (0.98, 0.9, 0.99)
LAYOUT = FolderLayout(labels="labels.csv")


@pytest.fixture
def several(make_artifact: MakeArtifact) -> Path:
    return make_artifact(task="multi", thresholds=THRESHOLDS)


@pytest.fixture
def shades(here: Path) -> tuple[np.ndarray, np.ndarray]:
    """Makes images of one colour, and returns scores and truth (N, 3) of the artifact's labels."""
    random = np.random.default_rng(0)
    colours = random.integers(0, 255, (40, 3))
    truth = random.random((40, 3)) < colours / 255
    Path("shades").mkdir()
    rows = []
    for number, (colour, had) in enumerate(zip(colours, truth, strict=True)):
        Image.new("RGB", (40, 40), tuple(colour.tolist())).save(f"shades/{number:02}.png")
        rows.append((f"{number:02}.png", *map(int, had[::-1])))
    write_csv(Path("shades/labels.csv"), ("file", *NAMES[::-1]), rows)
    return sigmoid(0.05 * colours.astype(np.float32)), truth


def test_figures_are_those_of_scikit_learn(
    several: Path, shades: tuple[np.ndarray, np.ndarray]
) -> None:
    scores, truth = shades
    found = evaluate(several, "shades", layout=LAYOUT)
    assert isinstance(found, SeveralEvaluation)
    answers = scores > THRESHOLDS
    assert found.images == 40
    assert found.mean_ap == pytest.approx(average_precision_score(truth, scores))
    assert found.micro_ap == pytest.approx(average_precision_score(truth, scores, average="micro"))
    assert found.macro_f1 == pytest.approx(f1_score(truth, answers, average="macro"))
    assert found.micro_f1 == pytest.approx(f1_score(truth, answers, average="micro"))
    assert found.exact == pytest.approx((truth == answers).all(axis=1).mean())
    assert found.chance == pytest.approx(truth.mean())
    assert [each.label for each in found.labels] == list(NAMES)
    assert [each.threshold for each in found.labels] == list(THRESHOLDS)
    assert [each.answered for each in found.labels] == answers.sum(axis=0).tolist()
    assert sum(each.images for each in found.bins) == 120


def test_the_command_writes_its_report(
    several: Path, shades: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    Evaluate(artifact=several, data="shades", labels="labels.csv")()
    assert "mAP" in capsys.readouterr().out
    stored = json.loads(Path("reports/evaluation.json").read_text())
    page = Path("reports/evaluation.md").read_text()
    assert f"{100 * stored['mean_ap']:.1f} % mAP" in page
    assert "do not sum to 1" in page
    assert len(stored["labels"]) == 3
    assert Path("reports/evaluation.png").exists()


def test_labels_of_one_side_only_are_left_out_and_said(
    several: Path, shades: tuple[np.ndarray, np.ndarray]
) -> None:
    scores, truth = shades
    with Path("shades/labels.csv").open() as file:
        rows = list(csv.reader(file))
    write_csv(Path("shades/other.csv"), ("file", "pink", "green", "red"), rows[1:])
    found = evaluate(several, "shades", layout=FolderLayout(labels="other.csv"))
    assert isinstance(found, SeveralEvaluation)
    assert [each.label for each in found.labels] == ["red", "green"]
    assert found.mean_ap == pytest.approx(average_precision_score(truth[:, :2], scores[:, :2]))
    assert found.unknown == {"pink": truth[:, 2].sum()}
    assert found.lacking == ("blue",)
    report = several_report(found)
    assert any("pink" in sentence for sentence in report.summary)
    mapped = evaluate(
        several, "shades", layout=FolderLayout(labels="other.csv"), names={"pink": "blue"}
    )
    assert isinstance(mapped, SeveralEvaluation)
    assert mapped.mean_ap == pytest.approx(average_precision_score(truth, scores))


def test_two_artifacts_are_compared(
    several: Path,
    shades: tuple[np.ndarray, np.ndarray],
    save_artifact: MakeArtifact,
    tmp_path: Path,
) -> None:
    scores, _ = shades
    path = tmp_path / "other" / "onnx-fp32"
    other = save_artifact(path, task="multi", thresholds=(0.5, 0.5, 0.5))
    found = evaluate(several, "shades", layout=LAYOUT, against=other)
    assert isinstance(found, SeveralEvaluation)
    assert found.against is not None
    assert found.against.figures.mean_ap == pytest.approx(found.mean_ap)
    first, second = scores > THRESHOLDS, scores > 0.5
    either = (first | second).sum(axis=1)
    shared = np.where(either, (first & second).sum(axis=1) / np.maximum(either, 1), 1)
    assert found.against.agreement == pytest.approx(shared.mean())


def test_a_mistake_is_one_line(
    several: Path, artifact_path: Path, shades: tuple[np.ndarray, np.ndarray]
) -> None:
    with pytest.raises(UserError, match="--labels FILE"):
        evaluate(several, "shades")
    with pytest.raises(UserError, match="leave out --multi-label"):
        evaluate(artifact_path, "shades", layout=FolderLayout(labels="l.csv", multi_label=True))
    with pytest.raises(UserError, match="cannot be compared"):
        evaluate(several, "shades", layout=LAYOUT, against=artifact_path)


def test_precision_and_coverage_are_reported_where_it_may_abstain(
    here: Path, make_artifact: MakeArtifact
) -> None:
    found = Abstention(threshold=0.9, wanted=0.95, precision=0.96, coverage=0.5, images=40)
    artifact = make_artifact(abstention=found)
    for label, colours in {
        "red": [(250, 9, 9), (100, 90, 90), (9, 9, 240)],
        "blue": [(9, 9, 250), (9, 9, 245), (90, 90, 100)],
    }.items():
        Path("pets", label).mkdir(parents=True)
        for number, colour in enumerate(colours):
            Image.new("RGB", (40, 40), colour).save(f"pets/{label}/{number}.png")
    evaluation = evaluate(artifact, "pets")
    assert isinstance(evaluation, Evaluation)
    assert evaluation.abstaining is not None
    assert (evaluation.abstaining.answered, evaluation.abstaining.right) == (4, 3)
    assert evaluation.abstaining.precision == 0.75
    (line,) = evaluation_report(evaluation).footnotes
    assert "75.0 %" in line
    assert "66.7 %" in line
    assert evaluation.abstaining.coverage == pytest.approx(4 / 6)
    Evaluate(artifact=artifact, data="pets")()
    assert "No answer where it is unsure" in Path("reports/evaluation.md").read_text()
    assert Artifact.load(artifact).abstention == found
