"""What the kept weights of a run do: their figures, and how their logits become answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from core.errors import UserError
from core.preprocess import ImageError
from training.checkpoint import Checkpoint
from training.data import Combinations, ImageData, Sample, label_sets, open_image
from training.loader import Report, plain_batches, read
from training.recipe import Recipe
from training.records import Abstaining, Answers, SeveralLabels
from training.summary.calibration import Calibration, calibration_error
from training.summary.label_figures import label_figures
from training.summary.mistakes import SHOWN, Mistake, names_of, worst_mistakes
from training.temperature import Outputs, calibrate, without
from training.thresholds import Abstention, answers_at, find_abstention, label_thresholds


@dataclass(kw_only=True, slots=True)
class Final:
    """What was measured.

    Attributes:
        metrics: further metrics of the checkpoint.
        answers: how logits become answers, as the checkpoint has it, and of several labels its
            ``confusion`` by their thresholds.
        tested: result on the test images; None without any.
        calibration: temperature of the logits; None if it was not asked for.
        abstaining: when the most likely class is no answer; None if that was not asked for.
        several: figures of several labels; None if an image has one class.
        mistakes: the wrong answers to held-out images with the highest scores, of one class.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    tested: Answers | None = None
    calibration: Calibration | None = None
    abstaining: Abstaining | None = None
    several: SeveralLabels | None = None
    mistakes: tuple[Mistake, ...] = ()


def measure(
    checkpoint: Checkpoint,
    network: nn.Module,
    data: ImageData,
    recipe: Recipe,
    *,
    report: Report | None,
) -> Final:
    """Returns what was measured of a run's kept weights, on held-out and on test images.

    Temperature and thresholds are chosen on held-out images; the test images are used for figures
    only.

    Args:
        checkpoint: of the kept weights.
        network: the same, on the device to use.
        data: the data set.
        recipe: the recipe.
        report: as for :func:`evaluate`, whose errors it raises.
    """
    final = Final()
    options: dict[str, Any] = {"report": report, "combinations": data.combinations}
    tested = evaluate(network, data.test, recipe, **options) if data.test else None
    if tested and not data.combinations:
        final.tested = tested.answers
        final.metrics |= {"test_top1": final.tested.top1, "test_images": final.tested.images}
    held_out = evaluate(network, data.val, recipe, **options)
    if recipe.calibrate:
        final.calibration = _calibrated(checkpoint, held_out, tested)
        temperature = final.calibration.temperature
        final.metrics["calibration_error"] = calibration_error(final.calibration.after)
        final.answers["temperature"] = temperature
        held_out = held_out.divided(temperature)
        tested = tested.divided(temperature) if tested else None
    if data.combinations:
        _add_labels(final, held_out, tested, data.labels, recipe.answer_precision)
        return final
    final.mistakes = _mistakes(held_out, data, recipe)
    if recipe.answer_precision is not None:
        _add_abstention(final, held_out, tested, recipe.answer_precision)
    return final


def _add_labels(
    final: Final,
    held_out: Outputs,
    tested: Outputs | None,
    labels: Sequence[str],
    precision: float | None,
) -> None:
    """Adds thresholds, and the figures of answers by them."""
    thresholds, never = label_thresholds(held_out.scores, held_out.labels, labels, precision)
    of_held_out = label_figures(held_out.labels, held_out.scores, thresholds, labels)
    of_tested = None
    final.metrics |= {
        "top1": of_held_out.exact,
        "map": of_held_out.mean_ap,
        "micro_map": of_held_out.micro_ap,
        "macro_f1": of_held_out.macro_f1,
        "micro_f1": of_held_out.micro_f1,
    }
    if tested:
        of_tested = label_figures(tested.labels, tested.scores, thresholds, labels)
        final.metrics |= {
            "test_top1": of_tested.exact,
            "test_map": of_tested.mean_ap,
            "test_macro_f1": of_tested.macro_f1,
            "test_micro_f1": of_tested.micro_f1,
            "test_images": of_tested.images,
        }
    final.answers["thresholds"] = list(thresholds)
    final.answers["confusion"] = torch.from_numpy(of_held_out.confusion)
    final.several = SeveralLabels(held_out=of_held_out, tested=of_tested, never=tuple(never))


def _add_abstention(
    final: Final, held_out: Outputs, tested: Outputs | None, precision: float
) -> None:
    """Adds when to abstain, and what that does on test images."""
    found = find_abstention(held_out.best_scores(), held_out.right, precision)
    final.abstaining = Abstaining(found=found)
    if not isinstance(found, Abstention):
        return
    final.answers["abstention"] = asdict(found)
    final.metrics |= {"answer_precision": found.precision, "coverage": found.coverage}
    if tested:
        counts = answers_at(found.threshold, tested.best_scores(), tested.right)
        given, images = Answers(*counts), len(tested.labels)
        final.abstaining = Abstaining(found=found, tested=given, test_images=images)
        if given.images:
            final.metrics["test_answer_precision"] = given.top1
        final.metrics["test_coverage"] = given.images / images


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    samples: Sequence[Sample],
    recipe: Recipe,
    *,
    report: Report | None = None,
    combinations: Combinations = (),
) -> Outputs:
    """Returns what a network in evaluation mode answers to ``samples``.

    Args:
        network: the network, on the device to use.
        samples: labelled images.
        recipe: provides preprocessing and batch size.
        report: called with the exception of each image that cannot be read; None raises it.
        combinations: of labels, of which the samples' indices are, if they may have several.

    Raises:
        UserError: no image can be read.
    """
    device = next(network.parameters()).device
    batches = [
        (network(batch.pixels.to(device)).cpu().numpy(), batch.labels.numpy())
        for batch in plain_batches(samples, recipe)
        if len(read(batch, report).labels)
    ]
    if not batches:
        raise UserError("no image of the part to test on can be read")
    logits, indices = map(np.concatenate, zip(*batches, strict=True))
    if combinations:
        return Outputs(logits, label_sets(indices, combinations, logits.shape[1]))
    return Outputs(logits, indices)


@torch.inference_mode()
def _calibrated(checkpoint: Checkpoint, held_out: Outputs, tested: Outputs | None) -> Calibration:
    """Returns :func:`calibrate`'s result, if the network's last layer can be divided by it."""
    calibration = calibrate(held_out, tested)
    shape = (2, *checkpoint.preprocess.shape)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    plain = checkpoint.network()(pixels)
    divided = replace(checkpoint, temperature=calibration.temperature).network()(pixels)
    if torch.allclose(divided * calibration.temperature, plain, rtol=1e-3, atol=1e-3):
        return calibration
    reason = f"the last layer of {checkpoint.model} does not scale its logits"
    return without(tested or held_out, reason, len(held_out.labels), tested is not None)


def _mistakes(outputs: Outputs, data: ImageData, recipe: Recipe) -> tuple[Mistake, ...]:
    """Returns the worst mistakes among the held-out images that could be read."""
    named = list(zip(data.val, names_of(data.val, data.folder), strict=True))
    if len(outputs.labels) < len(named):
        named = [(sample, name) for sample, name in named if _can_be_read(sample, recipe)]
    samples, names = zip(*named, strict=True)
    answers, scores = outputs.logits.argmax(axis=1), outputs.best_scores()
    return worst_mistakes(samples, names, answers, scores, data.labels, SHOWN)


def _can_be_read(sample: Sample, recipe: Recipe) -> bool:
    try:
        open_image(sample[0], recipe.truncated)
    except ImageError:
        return False
    return True
