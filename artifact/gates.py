"""The gates: what an artifact must reach before it appears."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from artifact.records import Limits, Metrics, Parity, Precision, Weights
from core.errors import UserError
from core.task import Task

# int8 can move logits by a quarter without changing the top-1 class, so agreement is limited.
DEFAULTS: dict[Precision, Limits] = {
    "fp32": Limits(top1_agreement=1.0, top1_drop=0.001, golden_error=1e-3),
    "fp16": Limits(top1_agreement=0.99, top1_drop=0.001, golden_error=5e-2),
    "bf16": Limits(top1_agreement=0.98, top1_drop=0.002, golden_error=1e-1),
    "int8": Limits(top1_agreement=0.95, top1_drop=0.01, golden_error=1e-1),
}
# For float32 with random weights: the order of summation alone causes errors up to 5e-4 in deep
# networks, a wrong layer 0.1 and more.
RANDOM_ERROR = 1e-2
MOST_OF_SEVERAL = 0.99  # highest limit of the agreement of several labels
# For int8 with random weights: each layer multiplies what its predecessors' roundings differ by, so
# one level of one pixel moves logits by up to 0.23, another runtime's order of roundings by up to
# 0.24, and another image by 0.43 and more (docs/results.md). Trained weights damp it: 0.015.
RANDOM_GOLDEN = 0.35

_TITLES = {
    "agreement": "top-1 agreement",
    "drop": "top-1 lost",
    "error": "relative error",
    "finite": "finite logits",
    "batches": "relative error between batch sizes",
    "golden": "relative error of the golden batch",
}


# Where an image may have several labels.
_SEVERAL = {"agreement": "agreement of labels", "drop": "mAP lost"}


class GateError(UserError):
    """An artifact that misses a gate; the message names the figure and its limit."""


@dataclass(frozen=True, slots=True)
class Gate:
    """A figure of an artifact with its limit.

    Attributes:
        name: name of the figure.
        value: measured value.
        limit: lower limit for ``agreement`` and ``finite``, upper limit otherwise.
        measured: a text that says on what it was measured.
        several: whether an image may have several labels.
    """

    name: Literal["agreement", "batches", "drop", "error", "finite", "golden"]
    value: float
    limit: float
    measured: str
    several: bool = False

    @property
    def holds(self) -> bool:
        """Returns whether the figure is within its limit; a NaN never is."""
        if self.name in ("agreement", "finite"):
            return self.value >= self.limit
        return self.value <= self.limit + 1e-9  # a drop is a difference of two fractions

    @property
    def title(self) -> str:
        """Returns what it measures, as text."""
        titles = {**_TITLES, **_SEVERAL} if self.several else _TITLES
        return titles[self.name]

    @property
    def figure(self) -> str:
        """Returns the value as text."""
        return self._show(self.value)

    @property
    def bound(self) -> str:
        """Returns the limit as text."""
        least = "at least " if self.name == "agreement" else "at most "
        return self._show(self.limit) if self.name == "finite" else least + self._show(self.limit)

    def _show(self, value: float) -> str:
        if self.name == "agreement":
            return f"{value:.1%}"
        if self.name == "drop":
            return f"{100 * value:.2f} points"
        if self.name == "finite":
            return "all" if value else "not all"
        return f"{value:.2g}"

    def __str__(self) -> str:
        return f"{self.title}: {self.figure} {self.measured}, must be {self.bound}"


def limits_for(
    precision: Precision,
    *,
    weights: Weights,
    labelled: bool,
    max_drop: float | None = None,
    task: Task = "single",
) -> Limits:
    """Returns the limits of an artifact.

    Args:
        precision: precision of its graph.
        weights: random weights have no meaningful top-1; in float32 their logits are compared with
            torch's instead, in int8 runtimes may differ by more than with others.
        labelled: whether there are labelled images.
        max_drop: largest loss of top-1, in [0, 1]; None for the default of its precision.
        task: of several labels, one of many scores may lie on its threshold, so that the last digit
            decides: not even float32 agrees fully.
    """
    default = DEFAULTS[precision]
    if weights == "random":
        error = RANDOM_ERROR if precision == "fp32" else None
        golden = RANDOM_GOLDEN if precision == "int8" else default.golden_error
        return dataclasses.replace(
            default,
            top1_agreement=None,
            top1_drop=None,
            relative_error=error,
            golden_error=golden,
        )
    drop = default.top1_drop if max_drop is None else max_drop
    agreement = default.top1_agreement
    if task == "multi" and agreement is not None:
        agreement = min(agreement, MOST_OF_SEVERAL)
    return dataclasses.replace(
        default, top1_agreement=agreement, top1_drop=drop if labelled else None
    )


def gates_of(parity: Parity, metrics: Metrics | None, limits: Limits) -> tuple[Gate, ...]:
    """Returns the gates that apply: those whose limit is not None."""
    batches = ", ".join(map(str, parity.batches))
    where = f"on {parity.runtime} at batch {batches}"
    names = {"torch": "torch", "onnx": "the original graph", "golden": "the golden batch"}
    reference = names[parity.reference]
    several = metrics is not None and metrics.mean_ap is not None
    gates = [Gate("finite", float(parity.finite), 1.0, where)]
    if limits.relative_error is not None:
        what = f"against {reference} on {parity.images} images"
        gates.append(Gate("error", parity.relative_error, limits.relative_error, what))
    if limits.top1_agreement is not None:
        what = f"with {reference} on {parity.images} images"
        gates.append(Gate("agreement", parity.top1_agreement, limits.top1_agreement, what, several))
    if limits.top1_drop is not None and metrics is not None:
        pair = (metrics.torch_top1, metrics.top1)
        if metrics.torch_mean_ap is not None and metrics.mean_ap is not None:
            pair = (metrics.torch_mean_ap, metrics.mean_ap)
        lost = pair[0] - pair[1]
        what = f"of {reference}'s {pair[0]:.1%} on {metrics.images} images"
        gates.append(Gate("drop", lost, limits.top1_drop, what, several))
    gates.append(Gate("batches", parity.batch_error, limits.golden_error, where))
    gates.append(Gate("golden", parity.golden_error, limits.golden_error, f"on {parity.runtime}"))
    return tuple(gates)


def check_gates(gates: tuple[Gate, ...]) -> None:
    """Raises GateError if one of ``gates`` does not hold."""
    missed = [str(gate) for gate in gates if not gate.holds]
    if missed:
        raise GateError("; ".join(missed))
