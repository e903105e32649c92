"""Temperature scaling: what it does to scores, and what it leaves alone."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from training import fit as fitting
from training.checkpoint import load_checkpoint
from training.datasets import load_data
from training.final import evaluate
from training.fit import fit
from training.recipe import Recipe
from training.records import RunFacts
from training.summary.calibration import calibration_error
from training.temperature import FEWEST, Outputs, calibrate, fit_temperature


def drawn(images: int, *, temperature: float, seed: int = 0) -> Outputs:
    """Returns logits whose scores are right when divided by ``temperature``."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(images, 4)) * 2
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([random.choice(4, p=row) for row in scores])
    return Outputs((logits * temperature).astype(np.float32), labels)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_a_known_temperature_is_found(temperature: float) -> None:
    held_out, tested = (drawn(3000, temperature=temperature, seed=seed) for seed in (0, 1))
    assert fit_temperature(held_out) == pytest.approx(temperature, rel=0.1)
    for others in (None, tested):
        calibration = calibrate(held_out, others)
        assert calibration.temperature == fit_temperature(held_out)
        assert calibration.reason is None
        assert calibration.tested_on == (3000 if others else 0)
        assert calibration_error(calibration.before) > 0.1
        assert calibration_error(calibration.after) < 0.04
    assert calibrate(held_out, tested).before == tested.bins()


def test_figures_are_of_images_that_the_temperature_was_not_fitted_on() -> None:
    held_out = drawn(200, temperature=2.0)
    folds = np.arange(200) % 5
    parts = []
    for fold in range(5):
        rest = Outputs(held_out.logits[folds != fold], held_out.labels[folds != fold])
        inside = Outputs(held_out.logits[folds == fold], held_out.labels[folds == fold])
        parts.append(inside.divided(fit_temperature(rest)))
    crossed = Outputs(*(np.concatenate(each) for each in zip(*parts, strict=True)))
    error = calibration_error(calibrate(held_out, None).after)
    assert error == pytest.approx(calibration_error(crossed.bins()))


def test_when_logits_are_left_as_they_are() -> None:
    few = calibrate(drawn(FEWEST - 1, temperature=3.0), None)
    assert "fewer than 100" in str(few.reason)
    perfect = drawn(200, temperature=3.0)
    never_wrong = calibrate(Outputs(perfect.logits, perfect.logits.argmax(axis=1)), None)
    assert "classified wrongly" in str(never_wrong.reason)
    right = calibrate(drawn(150, temperature=1.0, seed=4), None)
    assert "did not help" in str(right.reason)
    for each in (few, never_wrong, right):
        assert each.temperature == 1
        assert each.after == each.before


def test_a_run_is_calibrated_and_its_answers_are_the_same(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts: list[RunFacts] = []
    summary = fitting.write_summary

    def written(folder: Path, told: RunFacts, *rest: object) -> Path:
        facts.append(told)
        return summary(folder, told, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(fitting, "write_summary", written)
    data = load_data("digits")
    recipe = Recipe(
        epochs=2, batch_size=64, learning_rate=3e-3, resize=8, crop=8, min_scale=1.0, flip=False,
        warmup=0.0, label_smoothing=0.3,
    )  # fmt: skip
    path = fit("resnet14", data, recipe)
    checkpoint = load_checkpoint(path)
    calibration = facts[0].calibration
    assert calibration is not None
    assert checkpoint.temperature == calibration.temperature < 0.9  # smoothed, so scores are low
    error = calibration_error(calibration.after)
    assert checkpoint.metrics["calibration_error"] == error < calibration_error(calibration.before)
    plain = evaluate(checkpoint.network(calibrated=False), data.val, recipe)
    divided = evaluate(checkpoint.network(), data.val, recipe)
    np.testing.assert_allclose(
        divided.logits * checkpoint.temperature, plain.logits, rtol=1e-4, atol=1e-4
    )
    assert (divided.logits.argmax(axis=1) == plain.logits.argmax(axis=1)).all()
    assert divided.answers.top1 == pytest.approx(checkpoint.metrics["top1"], abs=1 / 359)
    page = (path.parent / "README.md").read_text()
    assert re.search(rf"temperature of {checkpoint.temperature:.3f}\b", page)
    assert (path.parent / "reliability.png").stat().st_size > 1000
    # Without it, the same weights. The pictures of a run take longer than one so short.
    monkeypatch.setattr(fitting, "write_summary", lambda *_: None)
    path.parent.rename(here / "runs" / "calibrated")
    left = load_checkpoint(fit("resnet14", data, dataclasses.replace(recipe, calibrate=False)))
    assert left.temperature == 1
    assert "calibration_error" not in left.metrics
    for key, weight in left.state_dict.items():
        assert torch.equal(weight, checkpoint.state_dict[key]), key
