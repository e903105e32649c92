"""The Pareto front of latency and accuracy.

A trained artifact has its own measured top-1. One with ImageNet or random weights has the figure
its publisher prints for the network: published, never measured, and never on one front with the
measured ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bench.latency.rows import Row, Sweep
from bench.measure.timing import Latency, overlap
from models.cost import known_costs
from models.published import Published, published_top1

# Publishers' figures are of float32 weights. Rounding them to float16 changes next to nothing;
# what int8 loses is not known without the weights and images.
AS_PUBLISHED = ("fp32", "fp16")


@dataclass(frozen=True, kw_only=True, slots=True)
class RatedRow:
    """A measured row with an accuracy.

    Attributes:
        row: has a latency.
        top1: in [0, 1]; the artifact's own, or the published one.
        published: where ``top1`` is from; None where it was measured on the artifact.
    """

    row: Row
    top1: float
    published: Published | None = None

    @property
    def latency(self) -> Latency:
        """Returns the latency of its row."""
        assert self.row.latency is not None, "candidates were measured"
        return self.row.latency

    @property
    def data(self) -> str:
        """Returns the images ``top1`` is of; published figures are all of ImageNet's."""
        return "ImageNet (published)" if self.published else self.row.data

    @property
    def source(self) -> str:
        """Returns whose figure ``top1`` is."""
        if self.published:
            return f"the publisher: {self.published.source}, {self.published.size} px"
        assert self.row.metrics is not None, "a figure of its own has its number of images"
        return f"this artifact, on {self.row.metrics.images:,} images"


def with_accuracy(sweep: Sweep) -> list[RatedRow]:
    """Returns the measured rows of ``sweep`` that have a top-1 of their own or a published one."""
    found = []
    for row in sweep.measured():
        if row.metrics is not None:
            found.append(RatedRow(row=row, top1=row.metrics.top1))
        elif row.precision in AS_PUBLISHED and (published := published_for(row)):
            found.append(RatedRow(row=row, top1=published.top1, published=published))
    return found


def published_for(row: Row) -> Published | None:
    """Returns the published accuracy of the network that ``row`` timed, or None.

    None, too, where it is of images of another size: a latency at 260 pixels goes with no accuracy
    at 288. ImageNet weights are exported at their publisher's size, random ones at the native one,
    which the count of MACs shows.
    """
    published = published_top1(row.model)
    if published is None or row.weights not in ("imagenet", "random"):
        return None
    if not published.native:
        return published if row.weights == "imagenet" else None
    cost = known_costs().get(row.model)
    return published if cost is not None and row.macs == cost.macs else None


def beats(a: RatedRow, b: RatedRow) -> bool:
    """Returns whether ``a`` is better than ``b`` in latency or top-1, and not worse in the other.

    Latencies whose 95 % intervals overlap are taken for equal: of two such candidates the more
    accurate one beats the other, and of two that are as accurate neither does.
    """
    if a.top1 < b.top1:
        return False
    if overlap(a.latency, b.latency):
        return a.top1 > b.top1
    return a.latency.p50 < b.latency.p50


def pareto_front(candidates: Iterable[RatedRow]) -> list[RatedRow]:
    """Returns the candidates that none of those returned beats, the fastest first.

    Ties do not add up: a may tie with b, and b with c, while a is slower than c. So the most
    accurate is taken first, and what is beaten by none taken so far is taken, too. All others are
    then beaten by one that was taken; a candidate that only such others beat is not lost.

    Args:
        candidates: of one kind of accuracy, on one data set, at one batch size.
    """
    taken: list[RatedRow] = []
    # Whoever beats a candidate comes before it: more accurate, or as accurate and faster.
    for candidate in sorted(candidates, key=lambda c: (-c.top1, c.latency.p50)):
        if not any(beats(other, candidate) for other in taken):
            taken.append(candidate)
    return sorted(taken, key=lambda c: (c.latency.p50, -c.top1))
