"""When a single class is no answer: chosen on held-out images, and in checkpoint and README."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

from training.checkpoint import checkpoint_path, load_checkpoint, run_folder
from training.records import Abstaining, Answers
from training.summary.unsure import unsure_lines
from training.thresholds import Abstention, answers_at, find_abstention

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_the_lowest_score_with_the_wanted_precision_is_found() -> None:
    random = np.random.default_rng(0)
    scores = random.random(500)
    hits = random.random(500) < scores  # calibrated: precision grows with the score
    found = find_abstention(scores, hits, 0.8)
    assert isinstance(found, Abstention)
    right, answered = answers_at(found.threshold, scores, hits)
    assert (found.precision, found.coverage) == (right / answered, answered / 500)
    assert found.precision >= 0.8
    for least in np.sort(scores[scores < found.threshold])[::-1][:50]:
        right, answered = answers_at(least, scores, hits)
        assert right / answered < 0.8
    assert find_abstention(scores, hits, 0.1).coverage == 1  # type: ignore[union-attr]


def test_equal_scores_are_answered_together() -> None:
    scores = np.repeat([0.9, 0.6], 20)
    hits = np.tile([True, False], 20)
    hits[:20] = True
    found = find_abstention(scores, hits, 0.8)
    assert isinstance(found, Abstention)
    assert (found.coverage, found.precision) == (0.5, 1.0)
    assert 0.6 < found.threshold < 0.9


def test_there_is_a_reason_where_there_is_none() -> None:
    reason = find_abstention(np.full(30, 0.5), np.arange(30) < 10, 0.9)
    assert "90 %" in str(reason)
    assert "fewer than" in str(find_abstention(np.full(5, 0.5), np.full(5, True), 0.9))
    assert "90 %" in unsure_lines(Abstaining(found=str(reason)), has_test=False)[2]


def test_the_readme_has_the_figures_of_both_parts() -> None:
    found = Abstention(threshold=0.71, wanted=0.95, precision=0.96, coverage=0.8, images=200)
    (_, _, text, _) = unsure_lines(
        Abstaining(found=found, tested=Answers(45, 50), test_images=100), has_test=True
    )
    for figure in ("0.710", "95.0 %", "96.0 %", "80.0 %", "50.0 %", "90.0 %"):
        assert figure in text
    assert unsure_lines(None, has_test=True) == []


def test_a_run_keeps_its_threshold(command: Command, here: Path) -> None:
    flags = shlex.split(
        "--model resnet14 --data digits --recipe-name scratch --recipe.epochs 1 --recipe.crop 8 "
        "--recipe.resize 8 --recipe.workers 0 --recipe.answer-precision 0.5"
    )
    ran = command("training", *flags)
    assert ran.returncode == 0, ran.stderr
    run = run_folder("resnet14", "digits")
    checkpoint = load_checkpoint(checkpoint_path(run))
    page = (run / "README.md").read_text()
    assert "No answer where it is unsure" in page
    assert checkpoint.abstention
    assert checkpoint.abstention.precision >= 0.5
    assert f"{100 * checkpoint.abstention.coverage:.1f} %" in page
    assert checkpoint.metrics["coverage"] == checkpoint.abstention.coverage
