"""The records a manifest is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, with_config

Logits = npt.NDArray[np.float32]
Precision = Literal["fp32", "fp16", "int8"]
Weights = Literal["trained", "imagenet", "random"]
Calibration = Literal["MinMax", "Percentile", "Entropy"]
Reference = Literal["torch", "onnx", "golden"]
# What a manifest may say where its fields have these types; 2**53 is exact in any JSON reader.
Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Positive = Annotated[int, Field(ge=1, le=2**53)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Label = Annotated[str, Field(max_length=1024)]
Labels = Annotated[tuple[Label, ...], Field(min_length=1, max_length=1_000_000)]

_STRICT = with_config(ConfigDict(extra="forbid", allow_inf_nan=False))


@_STRICT
@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """One end of the graph: its name, NumPy dtype and shape, where ``"batch"`` is free."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@_STRICT
@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How a file of weights was read that this project did not write.

    Attributes:
        entry: where in it the weights stand; empty where they are all that it holds.
        mean: per channel, of pixels in [0, 1]: subtracted in the first layer.
        std: likewise: what they are divided by.
        assumed: what nobody said of it and was taken as its publisher has it, in sentences.
        flags: of the command line that say how it was read.
        graph: whether it is an ONNX graph, which no torch network stands behind.
        program: whether it is an exported program of torch.
    """

    entry: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    assumed: tuple[str, ...]
    flags: tuple[str, ...]
    graph: bool = False
    program: bool = False


@_STRICT
@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where the weights came from.

    Attributes:
        origin: in words: a run, a publisher, or a seed.
        checkpoint: path of the file of weights, or None for ImageNet and random weights.
        sha256: of that file; None without one.
        data: name of the data of that run; None without one.
        reading: how that checkpoint was read; None where this project wrote it.
    """

    origin: str
    checkpoint: str | None = None
    sha256: Digest | None = None
    data: str | None = None
    reading: Reading | None = None


@_STRICT
@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """Agreement of a runtime with the network it came from, on the same real images.

    Attributes:
        runtime: what ran the artifact's model file.
        reference: whose logits it is compared with: torch's, those of the ONNX graph that it was
            made from, or, on a machine without either, those of the golden batch.
        images: how many images it is compared on, at the largest batch size.
        batches: the batch sizes that were run.
        finite: whether all logits were finite at every batch size.
        top1_agreement: fraction of images with the same top-1 class.
        relative_error: largest absolute difference of logits over the largest absolute logit of
            the reference. A limit is set to it only where there are no classes to agree on.
        batch_error: the same between the logits of an image at another batch size and at the
            largest.
        golden_error: the same of the golden batch, run by a runtime that was loaded anew.
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
    """Accuracy on held-out images, in [0, 1], measured on this very artifact.

    Attributes:
        top1: of the artifact.
        torch_top1: of the torch network on the same images.
        images: how many.
        runtime: what ran the artifact.
    """

    top1: Fraction
    torch_top1: Fraction
    images: Positive
    runtime: str


@_STRICT
@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What the figures of an artifact must reach.

    Attributes:
        top1_agreement: least agreement with the reference; None for random weights, which have
            no classes to agree on.
        top1_drop: most top-1 lost against torch, in [0, 1]; None where no image has a label.
        golden_error: largest relative error of the golden batch, and between batch sizes:
            processors and versions round differently, and int8 more so.
        relative_error: largest relative error against the reference; None where agreement tells.
    """

    top1_agreement: Fraction | None
    top1_drop: Fraction | None
    golden_error: Fraction
    relative_error: Fraction | None = None


@_STRICT
@dataclass(frozen=True, kw_only=True, slots=True)
class Quantization:
    """How an int8 graph was made.

    Attributes:
        calibration: the method that gave each activation its range.
        images: how many calibration images it was chosen on.
        labelled: whether ``top1`` counts true labels; if not, it is agreement with float32.
        top1: of each method on those images, all layers in int8; the best one was taken.
    """

    calibration: Calibration
    images: Positive
    labelled: bool
    top1: dict[Calibration, Fraction]


@_STRICT
@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """What an engine is tied to: it is loaded only where all of it matches.

    Attributes:
        version: of the TensorRT flavour that built it.
        capabilities: the compute capabilities it was built for, such as ``8.6``.
        driver: CUDA version of the driver where it was built, such as ``13.0``; None where there
            was no GPU.
        onnx_sha256: of the graph it was built from, which lies beside it.
        profiles: smallest, typical and largest batch of each optimization profile.
    """

    version: str
    capabilities: tuple[str, ...]
    driver: str | None
    onnx_sha256: Digest
    profiles: tuple[tuple[Positive, Positive, Positive], ...]
