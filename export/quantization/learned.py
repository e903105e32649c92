"""int8 graphs that were trained: the first one of a run, and what becomes of it."""

from __future__ import annotations

from typing import Any

from artifact.answering import Sets
from artifact.records import Quantization, WeightBits
from core.errors import UserError
from core.preprocess import Pixels, Preprocess
from export.quantization.int8 import IMAGES, Calibrated, chosen_images, finished, judge_of, norms_of
from export.quantization.qdq import WEIGHT_LIMIT, LearnedInt8
from export.quantization.sensitivity import GraphCandidate
from export.rewrites.channel_shuffle import fold_shuffles
from export.samples import CALIBRATION_IMAGES, spread
from export.to_onnx import to_onnx
from models.classifier import Classifier
from models.inference_form import inference_form
from training.data import ImageData, label_sets, pixel_batches
from training.recipe import Recipe


def first_graph(
    module: Classifier, preprocess: Preprocess, data: ImageData, recipe: Recipe
) -> tuple[bytes, int]:
    """Returns the int8 graph to begin with, and its largest integer weight.

    It is the one that export would make if no layer could stay in float32.

    Args:
        module: the float32 network.
        preprocess: how an image becomes its pixels.
        data: its training images calibrate the ranges.
        recipe: bits of the weights.
    """
    samples = spread(data.train, CALIBRATION_IMAGES)
    batches = pixel_batches(samples, preprocess, size=len(samples), truncated=recipe.truncated)
    pixels, indices = next(batches)
    labels = label_sets(indices, data.combinations, len(data.labels))
    model = to_onnx(inference_form(module), size=preprocess.crop)
    fold_shuffles(model)
    made = Calibrated(model, pixels, labels, judged=True, weight_bits=recipe.weight_bits)
    return made.graph.SerializeToString(), WEIGHT_LIMIT[recipe.weight_bits]


def learned_candidate(
    learned: LearnedInt8,
    fp32: Any,
    pixels: Pixels,
    labels: Sets | None,
    weight_bits: WeightBits | None,
) -> GraphCandidate:
    """Returns the int8 graph that a run trained, with its rewrites.

    Args:
        learned: from the run.
        fp32: the float32 graph.
        pixels: uint8 (n, H, W, 3) of the images that others calibrate with; it is measured on them.
        labels: their answers, bool (n, C): which labels they have; None if unknown.
        weight_bits: bits of the weights that are asked for.

    Raises:
        UserError: its weights have other bits.
    """
    import onnx

    if weight_bits not in (None, learned.weight_bits):
        raise UserError(
            f"--target asks for weights of {weight_bits} bits, and the run trained "
            f"{learned.weight_bits}; leave it out, or train again with --recipe.weight-bits "
            f"{weight_bits}"
        )
    graph = onnx.ModelProto.FromString(learned.content)
    pixels, labels = chosen_images(pixels, labels, IMAGES)
    score = judge_of(fp32, pixels, labels)(graph)
    made = Quantization(
        calibration="QAT",
        images=len(pixels),
        labelled=labels is not None,
        top1={"QAT": score.top1},
        weight_bits=learned.weight_bits,
    )
    return finished(graph, norms_of(graph), made)
