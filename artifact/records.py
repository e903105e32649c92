"""The records a manifest is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, with_config

Logits = npt.NDArray[np.float32]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
Weights = Literal["trained", "imagenet", "random"]
# How the ranges of an int8 graph were found; the last by training, all others by measuring.
Calibration = Literal["MinMax", "Percentile", "Entropy", "QAT"]
# Modules of export.rewrites.
Rewrite = Literal[
    "average_pool",
    "channel_blocks",
    "channel_shuffle",
    "float_activations",
    "grouped_shuffle",
    "hard_sigmoid",
    "pixel_order",
]
# Images by which nothing was chosen, or those by which epochs and thresholds may have been.
Part = Literal["test", "held-out"]
Reference = Literal["torch", "onnx", "golden"]
# Allowed values of manifest fields with these types; 2**53 is exact in any JSON reader.
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Positive = Annotated[int, Field(ge=1, le=2**53)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Label = Annotated[str, Field(max_length=1024)]
Labels = Annotated[tuple[Label, ...], Field(min_length=1, max_length=1_000_000)]

QUANTILES = 100  # of a feature in a profile: 0.005, 0.015, ..., 0.995
_Quantiles = Annotated[tuple[float, ...], Field(min_length=QUANTILES, max_length=QUANTILES)]

_STRICT = with_config(ConfigDict(extra="forbid", allow_inf_nan=False))


@_STRICT
@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """An input or output of the graph: name, NumPy dtype and shape; ``"batch"`` is dynamic."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@_STRICT
@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How weights that this project did not train were read.

    Attributes:
        entry: location of the weights in their file; empty if it holds nothing else, or for
            published weights.
        mean: per channel, for pixels in [0, 1]; subtracted in the first layer.
        std: standard deviation, likewise; divided by in the first layer.
        assumed: sentences that say what was neither given nor in the file, and was assumed.
        flags: command-line flags that say how they were read.
        graph: whether the file is an ONNX graph, without a torch network.
        program: whether the file is an exported program of torch.
        image_labels: path of the CSV file with the labels of the images it was verified on; None
            if their folders are their classes, or they have none.
        image_labels_columns: its columns of file and labels, by name or number, where given.
    """

    entry: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    assumed: tuple[str, ...]
    flags: tuple[str, ...]
    graph: bool = False
    program: bool = False
    image_labels: str | None = None
    image_labels_columns: tuple[str, ...] = ()


@_STRICT
@dataclass(frozen=True, kw_only=True, slots=True)
class QatRun:
    """A run of quantization-aware fine-tuning.

    Attributes:
        checkpoint: path of its checkpoint.
        sha256: digest of that file.
        epochs: epochs of the kept weights.
    """

    checkpoint: str
    sha256: Digest
    epochs: Positive


@_STRICT
@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The origin of the weights.

    Attributes:
        origin: a text: a run, a publisher, or a seed.
        checkpoint: path of the file of weights; None for ImageNet and random weights.
        sha256: digest of that file; None without one.
        data: data set of the run, or labelled images it was verified on, as ``--data`` takes it: a
            name, or the path of a folder; None without one.
        reading: how the weights were read; None for those of a run here or random ones, and for
            published ones that are as published.
        qat: the run that trained the int8 form of the weights; None without one.
        fold: the fold that its run held out, ``2of5``; None if it was no fold.
    """

    origin: str
    checkpoint: str | None = None
    sha256: Digest | None = None
    data: str | None = None
    reading: Reading | None = None
    qat: QatRun | None = None
    fold: Annotated[str, Field(pattern=r"^[0-9]+of[0-9]+$")] | None = None


@_STRICT
@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """Agreement of an artifact in a runtime with a reference, on the same real images.

    Attributes:
        runtime: name of the runtime.
        reference: origin of the reference logits: torch, the ONNX graph that was given, or, on a
            machine without either, the golden batch.
        images: number of images compared, at the largest batch size.
        batches: batch sizes that were run.
        finite: whether all logits were finite at every batch size.
        top1_agreement: fraction of images with the same top-1 class; of several labels, the mean
            over the images of what both have of the labels that either has (Jaccard's index).
        relative_error: largest absolute difference of logits divided by the largest absolute logit
            of the reference. It has a limit only for random weights.
        batch_error: the same, between the logits of an image at other batch sizes and the largest.
        golden_error: the same, for the golden batch, in a runtime loaded again.
    """

    runtime: str
    reference: Reference
    images: Positive
    batches: tuple[Positive, ...]
    finite: bool
    top1_agreement: Fraction
    relative_error: NonNegative
    batch_error: NonNegative
    golden_error: NonNegative


@_STRICT
@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """Accuracy of this artifact on held-out images, in [0, 1].

    Attributes:
        top1: fraction of the images answered correctly: top-1, or, where they may have several
            labels, those of which each label is right.
        torch_top1: top-1 of the torch network on the same images.
        images: number of images.
        runtime: name of the runtime.
        mean_ap: mean average precision (mAP) of the artifact, where images may have several
            labels: the mean over the labels. None for a single one.
        torch_mean_ap: that of the torch network.
        part: which part of the data the images are.
    """

    top1: Fraction
    torch_top1: Fraction
    images: Positive
    runtime: str
    mean_ap: Fraction | None = None
    torch_mean_ap: Fraction | None = None
    part: Part = "held-out"


@_STRICT
@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The limits of an artifact's figures.

    Attributes:
        top1_agreement: least agreement with the reference; None for random weights, whose top-1
            is meaningless.
        top1_drop: largest loss of top-1 against torch, of several labels of mAP, in [0, 1]; None
            without labelled images.
        golden_error: largest relative error of the golden batch, and between batch sizes:
            processors and versions round differently, most of all in int8.
        relative_error: largest relative error against the reference; None where agreement is
            limited instead.
    """

    top1_agreement: Fraction | None
    top1_drop: Fraction | None
    golden_error: Fraction
    relative_error: Fraction | None = None


@_STRICT
@dataclass(frozen=True, kw_only=True, slots=True)
class Abstention:
    """When the most likely class is too unsure to be an answer.

    Attributes:
        threshold: score below which it is.
        wanted: fraction of right answers for which the threshold was chosen.
        precision: fraction of the images answered with it that were classified correctly.
        coverage: fraction of the images that were answered with it.
        images: number of validation images, by which it was chosen and of which these are.
    """

    threshold: Fraction
    wanted: Fraction
    precision: Fraction
    coverage: Fraction
    images: Positive


WeightBits = Literal[7, 8]


@_STRICT
@dataclass(frozen=True, kw_only=True, slots=True)
class Quantization:
    """How an int8 graph was made.

    Attributes:
        calibration: method that determined the range of each activation; QAT if it was learned.
        images: number of calibration images; with QAT, only ``top1`` is measured with them.
        labelled: whether ``top1`` is accuracy on labels; otherwise it is agreement with float32.
        top1: top-1 of each method on those images, with all layers in int8; the best was chosen. Of
            several labels it is the agreement of the answers with them (Jaccard's index).
        weight_bits: bits of the weights. With 8, x86 CPUs without VNNI compute wrong sums.
    """

    calibration: Calibration
    images: Positive
    labelled: bool
    top1: dict[Calibration, Fraction]
    weight_bits: WeightBits = 7


@_STRICT
@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """What an engine is tied to; it is loaded only on a machine that matches.

    Attributes:
        version: version of the TensorRT flavour that built it.
        capabilities: compute capabilities it was built for, such as ``8.6``.
        driver: CUDA version of the driver on the machine that built it, such as ``13.0``; None
            without a GPU.
        onnx_sha256: digest of the graph it was built from, in the same folder.
        profiles: smallest, optimal and largest batch size of each optimization profile.
    """

    version: str
    capabilities: tuple[str, ...]
    driver: str | None
    onnx_sha256: Digest
    profiles: tuple[tuple[Positive, Positive, Positive], ...]


@_STRICT
@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Distributions over images (:mod:`artifact.profile`).

    Attributes:
        images: number of images.
        quantiles: by feature (the score, and :data:`core.image_statistics.STATISTICS`), a
            hundred quantiles over the images, rising: 0.005, 0.015 and so on.
        classes: how many images got each label, in the order of the logits.
    """

    images: Positive
    quantiles: dict[str, _Quantiles]
    classes: tuple[Count, ...]
