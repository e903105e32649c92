"""The Pareto front of latency and accuracy.

The top-1 of a trained artifact is measured. An artifact with ImageNet or random weights gets the
published top-1 of its network. Measured and published figures are never on the same front.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import altair as alt

from bench.latency.charts import Panel, colour, points, shape, tooltip
from bench.latency.record import Row, Sweep, p50, title
from bench.measure.timing import Latency, decisive, is_faster, overlap
from models.cost import known_costs
from models.published import Published, published_top1
from report.format import ms, percent
from report.section import Figure, Section, Table

# Published figures are for float32 weights. They hold for float16 too, within rounding; the loss of
# int8 is unknown without the weights and images.
AS_PUBLISHED = ("fp32", "fp16")
_TEXT = ("Data", "Network", "Precision", "Runtime", "Top-1 of", "Tie with")
_COLUMNS = (
    "Data",
    "Batch",
    "Network",
    "Precision",
    "Runtime",
    "p50 ms",
    "95 % interval",
    "Top-1",
    "Top-1 of",
    "Tie with",
)
_QUIET = "#8b929c"


@dataclass(frozen=True, kw_only=True, slots=True)
class RatedRow:
    """A measured row with an accuracy.

    Attributes:
        row: the measured row.
        top1: top-1 in [0, 1], measured or published.
        published: source of ``top1``; None if it was measured on the artifact.
    """

    row: Row
    top1: float
    published: Published | None = None

    @property
    def latency(self) -> Latency:
        """Returns the latency of the row."""
        assert self.row.latency is not None, "candidates were measured"
        return self.row.latency

    @property
    def data(self) -> str:
        """Returns the data set of ``top1``; all published figures are for ImageNet."""
        return "ImageNet (published)" if self.published else self.row.data

    @property
    def source(self) -> str:
        """Returns a text with the source of ``top1``."""
        if self.published:
            return f"the publisher: {self.published.source}, {self.published.size} px"
        assert self.row.metrics is not None, "a figure of its own has its number of images"
        return f"this artifact, on {self.row.metrics.images:,} images"


def with_accuracy(sweep: Sweep) -> list[RatedRow]:
    """Returns the measured rows of ``sweep`` with a measured or published top-1."""
    found = []
    for row in sweep.measured():
        if row.metrics is not None:
            found.append(RatedRow(row=row, top1=row.metrics.top1))
        elif row.precision in AS_PUBLISHED and (published := published_for(row)):
            found.append(RatedRow(row=row, top1=published.top1, published=published))
    return found


def published_for(row: Row) -> Published | None:
    """Returns the published accuracy of the network of ``row``, or None.

    Also None if it was measured on other images than the latency of ``row``. ImageNet weights that
    are as published have the data name ``imagenet``; random weights have the native size and RGB,
    which is checked by comparing MACs.
    """
    published = published_top1(row.model)
    if published is None or row.weights not in ("imagenet", "random"):
        return None
    if not published.native:
        return published if row.weights == row.data == "imagenet" else None
    cost = known_costs().get(row.model)
    return published if cost is not None and row.macs == cost.macs else None


def beats(a: RatedRow, b: RatedRow) -> bool:
    """Returns whether ``a`` dominates ``b``: better in latency or top-1, not worse in the other.

    Latencies whose 95 % intervals overlap count as equal.
    """
    if a.top1 < b.top1:
        return False
    return is_faster(a.latency, b.latency) or (a.top1 > b.top1 and overlap(a.latency, b.latency))


def as_decided(candidates: Sequence[RatedRow]) -> list[RatedRow]:
    """Returns ``candidates`` with the latency that decides which is the fastest, in their order."""
    times = decisive(one.latency for one in candidates)
    return [
        replace(one, row=replace(one.row, latency=time))
        for one, time in zip(candidates, times, strict=True)
    ]


def pareto_front(candidates: Iterable[RatedRow]) -> list[RatedRow]:
    """Returns the Pareto front of ``candidates``, the fastest first.

    Overlap of intervals is not transitive: a may tie with b, and b with c, while a is slower than
    c. The front is therefore built greedily in order of accuracy: a candidate is added unless one
    on the front beats it. So no member beats another, and a member beats every other candidate.

    Args:
        candidates: candidates with comparable top-1, of one data set and one batch size.
    """
    given = list(candidates)
    entries = zip(as_decided(given), given, strict=True)
    taken: list[tuple[RatedRow, RatedRow]] = []
    # A candidate that beats another comes before it: more accurate, or equally accurate and faster.
    for candidate, one in sorted(entries, key=lambda pair: (-pair[0].top1, pair[0].latency.p50)):
        if not any(beats(other, candidate) for other, _ in taken):
            taken.append((candidate, one))
    return [one for _, one in sorted(taken, key=lambda t: (t[0].latency.p50, -t[0].top1))]


@dataclass(frozen=True, slots=True)
class _Race:
    """Candidates that may be compared with each other, the fastest first, and their front."""

    sweep: Sweep
    candidates: Sequence[RatedRow]
    front: Sequence[RatedRow]

    @property
    def name(self) -> str:
        """Returns their common data set, batch size, and threads if those vary in the sweep."""
        row = self.candidates[0].row
        threads = sorted({row.threads for row in self.sweep.rows})
        more = f", {row.threads} threads" if len(threads) > 1 else ""
        return f"{self.candidates[0].data}, batch {row.batch}{more}"

    @property
    def published(self) -> bool:
        """Returns whether their top-1 are published ones; either all are, or none."""
        return self.candidates[0].published is not None


def pareto_section(sweep: Sweep) -> Section | None:
    """Returns the fronts of ``sweep``, one per data set, batch size and number of threads.

    None if no two candidates differ in top-1, as the fastest is best then.
    """
    races = _races(sweep)
    if not races:
        return None
    return Section(
        title="Accuracy against latency",
        sentences=tuple(map(_sentence, races)),
        figures=tuple(map(_figure, races)),
        tables=(_table(races),),
        notes=tuple(_notes(sweep, races)),
    )


def _races(sweep: Sweep) -> list[_Race]:
    groups: dict[tuple[bool, str, int, int], list[RatedRow]] = {}
    for candidate in with_accuracy(sweep):
        row, published = candidate.row, candidate.published is not None
        groups.setdefault((published, candidate.data, row.batch, row.threads), []).append(candidate)
    return [
        _Race(sweep, group, pareto_front(group))
        for _, group in sorted(groups.items(), key=lambda item: item[0])
        if len({candidate.top1 for candidate in group}) > 1
    ]


def _sentence(race: _Race) -> str:
    count, front = len(race.candidates), race.front
    first = front[0]
    best = max(front, key=lambda candidate: candidate.top1)  # the fastest of equals
    if len(front) == 1:
        return f"{race.name}: of {count} candidates one beats all others, {_describe(first)}."
    text = f"{race.name}: of {count} candidates {len(front)} are beaten by none: "
    if best is first:  # all of them tie
        text += f"{_describe(first)} and its ties"
    else:
        text += f"from {_describe(first)} to {_describe(best)}"
    if rest := count - len(front):
        others = "The other one" if rest == 1 else f"Each of the other {rest}"
        text += (
            f". {others} is slower than one of them and no more accurate, or less accurate and no "
            "faster"
        )
    return f"{text}."


def _describe(candidate: RatedRow) -> str:
    row, kind = candidate.row, "published" if candidate.published else "measured"
    return f"{row.model} ({title(row)}, {ms(p50(row))} ms, {percent(candidate.top1)} {kind})"


def _table(races: Sequence[_Race]) -> Table:
    rows = (_cells(candidate, race.front) for race in races for candidate in race.front)
    return Table(header=_COLUMNS, rows=tuple(rows), numeric=frozenset(_COLUMNS).difference(_TEXT))


def _cells(candidate: RatedRow, front: Sequence[RatedRow]) -> tuple[str, ...]:
    row, latency = candidate.row, candidate.latency
    ties = [
        f"{tie.row.model} {tie.row.precision} in {tie.row.runtime}"
        for tie in front
        if tie is not candidate and overlap(tie.latency, latency)
    ]
    low, high = latency.interval
    return (
        candidate.data,
        str(row.batch),
        row.model,
        row.precision,
        str(row.runtime),
        ms(latency.p50),
        f"{ms(low)} to {ms(high)}",
        percent(candidate.top1),
        candidate.source,
        ", ".join(ties),
    )


def _notes(sweep: Sweep, races: Sequence[_Race]) -> list[str]:
    notes = [
        "One candidate beats another if it is faster and no less accurate, or more accurate and no "
        "slower. Latencies whose 95 % intervals of p50 overlap are taken for equal, so the more "
        "accurate of two such candidates beats the other."
    ]
    if any(race.published for race in races):
        notes.append(
            "Published top-1 is what a publisher measured on ImageNet, with weights of its own in "
            "float32. It is not the accuracy of an artifact here: latency hardly depends on the "
            "values of weights, accuracy is nothing but them. Publishers train by recipes of their "
            "own: part of a difference in top-1 is the recipe's, not the network's."
        )
        left_out = sum(
            row.metrics is None and row.precision not in AS_PUBLISHED and bool(published_for(row))
            for row in sweep.measured()
        )
        if left_out:
            notes.append(
                f"int8 rows are on no front ({left_out} here): what int8 loses is not published."
            )
    return notes


def _figure(race: _Race) -> Figure:
    caption = (
        "To the left is faster, up is more accurate. Bar: the 95 % interval of p50. Line: the best "
        "top-1 within a latency, where overlapping bars count as equally fast."
    )
    sizes = {c.row.metrics.images for c in race.candidates if c.row.metrics}
    if race.published:
        caption += " Marks are hollow: latency was measured here, top-1 is the publisher's."
    elif len(sizes) == 1:
        images = sizes.pop()
        caption += f" One of the {images:,} images is {100 / images:.2g} points of top-1."
    return Figure(title=f"Top-1 against latency: {race.name}", caption=caption, chart=_chart(race))


def _records(race: _Race) -> list[dict[str, Any]]:
    """Returns the data of the chart: one record per candidate, the fastest first."""
    batch = race.candidates[0].row.batch
    pairs = zip(race.sweep.measured(batch=batch), points(race.sweep, batch), strict=True)
    drawn = {id(row): point for row, point in pairs}
    front = {id(candidate) for candidate in race.front}
    named: set[tuple[str, float]] = set()
    records = []
    for candidate in race.candidates:
        member = id(candidate) in front
        name = (candidate.row.model, candidate.top1)
        records.append(
            {
                **drawn[id(candidate.row)],
                "accuracy": 100 * candidate.top1,
                "front": member,
                # A network that is on the front more than once is labelled once.
                "name": candidate.row.model if member and name not in named else "",
                "top-1": f"{percent(candidate.top1)}, {candidate.source}",
            }
        )
        if member:
            named.add(name)
    return records


def _chart(race: _Race) -> Panel:
    records, batch = _records(race), race.candidates[0].row.batch
    kind = "published top-1" if race.published else "top-1"
    fastest, slowest = (f(record["p50"] for record in records) for f in (min, max))
    x = alt.X(
        "p50:Q",
        title=f"latency per call at batch {batch} (ms)",
        scale=alt.Scale(type="log", domain=[fastest / 1.4, slowest * 1.3], nice=False),
        axis=alt.Axis(grid=False, tickCount=5, format="~g"),
    )
    y = alt.Y(
        "accuracy:Q",
        title=f"{kind} (%)",
        scale=alt.Scale(zero=False, padding=20),
        axis=alt.Axis(grid=True, tickCount=6),
    )
    legend = alt.Legend(symbolFillColor="transparent") if race.published else alt.Undefined
    every = alt.Chart(alt.Data(values=records)).encode(
        y=y, opacity=alt.condition("datum.front", alt.value(1.0), alt.value(0.35))
    )
    front = alt.Chart(alt.Data(values=[r for r in records if r["front"]])).encode(x=x, y=y)
    line = front.mark_line(interpolate="step-after", strokeWidth=1.5, color=_QUIET, opacity=0.7)
    bars = every.mark_rule(strokeWidth=6, strokeOpacity=0.3, strokeCap="round").encode(
        x="low:Q", x2="high:Q", color=colour(records, legend)
    )
    marks = every.mark_point(size=90, filled=not race.published, strokeWidth=2).encode(
        x=x,
        color=colour(records, legend),
        shape=shape(records, legend),
        tooltip=tooltip(),
    )
    # Labels on the left half are aligned left, those on the right half right, to stay inside.
    middle = (fastest * slowest) ** 0.5
    sides: list[tuple[str, Literal["left", "right"], int]] = [
        ("<", "left", -4),
        (">=", "right", -5),
    ]
    names = [
        front.transform_filter(f"datum.p50 {where} {middle}")
        .mark_text(align=align, baseline="bottom", dx=dx, dy=-5, fontSize=10)
        .encode(text="name:N")
        for where, align, dx in sides
    ]
    return alt.layer(line, bars, marks, *names).properties(
        height=320,
        description=f"{kind} against latency at batch {batch}; the table below has the front.",
    )
