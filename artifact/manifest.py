"""The manifest of an artifact: the fields of its manifest.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from shlex import join, quote

from pydantic import ConfigDict, with_config

from artifact.formats import FORMATS, FormatSpec
from artifact.gates import DEFAULTS, Gate, gates_of
from artifact.records import (
    Abstention,
    Count,
    Digest,
    Fingerprint,
    Fraction,
    Labels,
    Limits,
    Metrics,
    Parity,
    Positive,
    Precision,
    Profile,
    Quantization,
    Rewrite,
    Source,
    TensorSpec,
    Weights,
)
from core.image_size import size_text
from core.preprocess import Preprocess
from core.task import Task


@with_config(ConfigDict(extra="forbid", allow_inf_nan=False))
@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Everything that is known of an artifact except its path.

    Attributes:
        model: registry name of the network.
        data: name of the data set it was trained on; ``imagenet`` or ``random`` without a run.
        weights: trained (here or by other software, see ``source``), published for ImageNet, or
            random (useful for latency only).
        precision: precision of the graph.
        format: format of the model files, a name in :data:`artifact.formats.FORMATS`.
        labels: class names, in the order of the logits.
        preprocess: how an image becomes pixels.
        input: uint8 ("batch", H, W, 3).
        output: float32 ("batch", num_classes).
        batch_range: smallest and largest batch size of the model file.
        macs: multiply-accumulates per image.
        parameters: number of weights and biases of the torch network, without branches that only
            training needs.
        shape_nodes: number of graph nodes that only compute shapes at run time.
        limits: limits of the figures below.
        parity: agreement with torch; None if unverified.
        metrics: accuracy; None if not measured (no held-out images, or not runnable here).
        unverified: why the model file was not run on the machine that made it; None if it was.
        source: origin of the weights.
        task: whether an image has one of the labels, or any number of them.
        thresholds: scores above which an image has each label; empty for a single one.
        abstention: when a single label is too unsure to be an answer; None if never.
        fp32_layers: names of the nodes left in float32, the most sensitive first; of int8 ones in
            float16 where the format computes in that.
        quantization: how the int8 graph was made; None for other precisions.
        rewrites: how many nodes of the graph each rewrite replaced, to compute them in less time.
        profile: distributions of answers and images over the held-out images; None without
            labelled ones.
        fingerprint: what an engine is tied to; None for a graph.
        versions: versions of the packages that made it, by name.
        sha256s: digests of the other files, by name.
    """

    model: str
    data: str
    weights: Weights
    precision: Precision
    format: str
    labels: Labels
    preprocess: Preprocess
    input: TensorSpec
    output: TensorSpec
    batch_range: tuple[Positive, Positive]
    macs: Count
    parameters: Count
    limits: Limits
    parity: Parity | None
    metrics: Metrics | None
    unverified: str | None
    source: Source
    task: Task = "single"
    thresholds: tuple[Fraction, ...] = ()
    abstention: Abstention | None = None
    shape_nodes: Count = 0
    fp32_layers: tuple[str, ...] = ()
    quantization: Quantization | None = None
    rewrites: dict[Rewrite, Positive] = field(default_factory=dict)
    profile: Profile | None = None
    fingerprint: Fingerprint | None = None
    versions: dict[str, str]
    sha256s: dict[str, Digest]

    @property
    def name(self) -> str:
        """Returns ``<format>-<precision>``, the name of the folder."""
        return f"{self.format}-{self.precision}"

    @property
    def spec(self) -> FormatSpec:
        """Returns the spec of its format."""
        return FORMATS.find(self.format)

    @property
    def gates(self) -> tuple[Gate, ...]:
        """Returns the figures that have a limit; empty for an unverified artifact."""
        return gates_of(self.parity, self.metrics, self.limits) if self.parity else ()

    @property
    def rebuild_command(self) -> str:
        """Returns the command that makes this artifact again."""
        made_of = f"--weights {self.weights}"
        data = f"--data {quote(self.source.data or self.data)}"
        if self.weights == "trained":
            made_of = data + (f" --fold {self.source.fold}" if self.source.fold else "")
        size = size_text(self.preprocess.crop)
        if self.data.endswith(f"-{size}"):  # not the network's native size
            made_of += f" --size {size}"
        if self.preprocess.channels != 3:
            made_of += f" --channels {self.preprocess.channels}"
        if self.source.reading:
            made_of = join(self.source.reading.flags) + (f" {data}" if self.source.data else "")
        if self.source.qat:
            made_of += " --qat"
        options = f"--formats {self.name} --max-batch {self.batch_range[1]}"
        drop = self.limits.top1_drop
        if drop is not None and drop != DEFAULTS[self.precision].top1_drop:
            options += f" --max-drop {100 * drop:.12g}"  # in points
        if self.fingerprint and (static := self.fingerprint.profiles[1:]):
            options += f" --batches {' '.join(str(batch) for batch, _, _ in static)}"
        return f"python -m export run --model {self.model} {made_of} {options}"
