"""Latencies that papers published for phones, and rank correlations of ours with them.

Values are the printed milliseconds per image, or are converted from images per second. A network is
listed only if the registry has the same network at the same input size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from artifact.records import Precision
from bench.latency.record import Row, Sweep, latency, p50
from bench.measure.timing import is_faster
from models.cost import known_costs
from report.format import MISSING, ms, plural
from report.section import Section, Table

MIN_NETWORKS = 4  # fewer make any order look like a law
_NEAR = 0.05
_NAMED = 3  # pairs that are named; more are counted
FP32: Precision = "fp32"
INT8: Precision = "int8"
_LITES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
_V3_NETWORKS = ("mobilenet_v3_large", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v2_x0_35")


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperPhone:
    """A column of a paper: networks on one phone, one image a call.

    Attributes:
        phone: the phone, or its chip; its threads, if more than one.
        source: paper and table.
        ms: registry name of the network to milliseconds.
        precision: of the networks.
    """

    phone: str
    source: str
    ms: Mapping[str, float]
    precision: Precision = "fp32"


def _per_second(images: Mapping[str, float]) -> dict[str, float]:
    return {name: 1e3 / value for name, value in images.items()}


PAPER_PHONES = (
    PaperPhone(
        phone="Pixel 1, a large core",
        source="MobileNetV2, arXiv 1801.04381, Table 4",
        ms={"mobilenet_v1": 113, "mobilenet_v2": 75, "mobilenet_v2_x1_4": 143},
    ),
    PaperPhone(
        phone="Pixel 1",
        source="MobileNetV2, tensorflow/models, slim/nets/mobilenet/README.md",
        ms={
            "mobilenet_v2_x1_4": 138.0,
            "mobilenet_v2": 73.8,
            "mobilenet_v2_x0_75": 55.8,
            "mobilenet_v2_x0_5": 28.7,
            "mobilenet_v2_x0_35": 19.7,
        },
    ),
    *(
        PaperPhone(
            phone=f"Pixel {number}, a large core",
            source=source,
            ms=dict(zip(_V3_NETWORKS, column, strict=True)),
            precision=precision,
        )
        for source, precision, columns in (
            (
                "MobileNetV3, arXiv 1905.02244, Table 3",
                FP32,
                ((51, 64, 15.8, 16.6), (61, 76, 19.4, 19.6), (44, 56, 14.4, 13.9)),
            ),
            (
                "MobileNetV3, arXiv 1905.02244, Table 4",
                INT8,
                ((44, 52, 15.5, 16.7), (42.5, 48.3, 14.9, 15.6), (31.7, 37.0, 10.7, 11.9)),
            ),
        )
        for number, column in enumerate(columns, start=1)
    ),
    *(
        PaperPhone(
            phone="Pixel 4, 4 threads",
            source="EfficientNet-Lite, tensorflow/tpu, models/official/efficientnet/lite/README.md",
            ms=dict(zip(_LITES, values, strict=True)),
            precision=precision,
        )
        for precision, values in ((FP32, (12.0, 18.0, 26.0)), (INT8, (6.5, 9.1, 12.0)))
    ),
    PaperPhone(
        phone="Snapdragon 820",
        source="ShuffleNet, arXiv 1707.01083, Table 8",
        ms={
            "shufflenet_v1_g3_x0_5": 15.2,
            "shufflenet_v1_g3": 37.8,
            "shufflenet_v1_g3_x2_0": 108.8,
            "mobilenet_v1": 110.0,
        },
    ),
    PaperPhone(
        phone="Snapdragon 810",
        source="ShuffleNetV2, arXiv 1807.11164, Table 8",
        ms=_per_second(
            {
                "shufflenet_v2_x0_5": 57.0,
                "shufflenet_v2_x1_0": 24.4,
                "shufflenet_v2_x1_5": 11.8,
                "shufflenet_v2_x2_0": 6.7,
                "mobilenet_v1_x0_25": 36.4,
                "mobilenet_v1_x0_5": 16.5,
                "mobilenet_v1_x0_75": 10.6,
                "mobilenet_v1": 6.5,
                "mobilenet_v2": 8.9,
                "mobilenet_v2_x1_4": 5.4,
                "shufflenet_v1_g3_x0_5": 56.8,
                "shufflenet_v1_g3": 21.8,
                "shufflenet_v1_g3_x1_5": 10.3,
                "shufflenet_v1_g3_x2_0": 6.4,
            }
        ),
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The networks that both a paper and one runtime here measured.

    Attributes:
        paper: the paper's phone.
        rows: our rows, one per network, in ascending order of the paper's latency.
        spearman: Spearman's rank correlation, in [-1, 1].
        kendall: Kendall's tau-b, in [-1, 1].
        inverted: (slower, faster) by the paper: pairs whose order is reversed here, with
            confidence intervals that do not overlap.
    """

    paper: PaperPhone
    rows: tuple[Row, ...]
    spearman: float
    kendall: float
    inverted: tuple[tuple[Row, Row], ...]


def compare_orders(sweep: Sweep) -> list[Comparison]:
    """Returns a comparison for each published column and runtime with enough common networks."""
    found = []
    for paper in PAPER_PHONES:
        for rows in _comparable(sweep, paper.precision).values():
            both = [row for model, row in rows.items() if model in paper.ms]
            if len(both) >= MIN_NETWORKS:
                found.append(_compare(paper, sorted(both, key=lambda row: paper.ms[row.model])))
    return found


def _comparable(sweep: Sweep, precision: str) -> dict[str, dict[str, Row]]:
    """Returns runtime to network to its fastest row at batch 1 with one thread."""
    known = known_costs()
    found: dict[str, dict[str, Row]] = {}
    for row in sweep.measured(batch=1, threads=1):  # the fastest first
        # MACs identify the native input size: another number of classes changes them by a few
        # percent, the next smaller size by a quarter.
        cost = known.get(row.model)
        native = cost is not None and row.macs is not None and abs(row.macs / cost.macs - 1) < _NEAR
        if native and row.runtime and row.precision == precision:
            found.setdefault(row.runtime, {}).setdefault(row.model, row)
    return found


def _compare(paper: PaperPhone, rows: Sequence[Row]) -> Comparison:
    from scipy import stats  # half of what python -m bench would import

    theirs, ours = [paper.ms[row.model] for row in rows], [p50(row) for row in rows]
    inverted = tuple(
        (slow, fast)
        for fast, slow in combinations(rows, 2)
        if paper.ms[fast.model] < paper.ms[slow.model] and is_faster(latency(slow), latency(fast))
    )
    return Comparison(
        paper=paper,
        rows=tuple(rows),
        spearman=float(stats.spearmanr(theirs, ours).statistic),
        kendall=float(stats.kendalltau(theirs, ours).statistic),
        inverted=inverted,
    )


def papers_section(sweep: Sweep, where: str = "") -> Section | None:
    """Returns published latencies next to ours, with rank correlations.

    Args:
        sweep: the measured rows.
        where: end of the title, such as the cores of a phone.

    Returns:
        None if no network with a published latency was measured.
    """
    found = compare_orders(sweep)
    tables = [table for precision in (FP32, INT8) if (table := _figures(sweep, precision))]
    if not tables:
        return None
    sentences: tuple[str, ...] = ()
    if found:
        values = [each.spearman for each in found]
        sentences = (
            f"Spearman's rank correlation with {plural(len(found), 'column')} of published "
            f"latencies is {min(values):.2f} to {max(values):.2f}.",
        )
        tables.insert(0, _orders(found))
    return Section(
        title=f"Published latencies on phones{where}",
        sentences=sentences,
        tables=tuple(tables),
        notes=(
            "Published latencies are for one 224 x 224 image and one thread unless noted, with the "
            "runtimes of their time; images per second are converted to milliseconds. Only the "
            "order of networks is comparable. ShuffleNetV2 here is torchvision's, which differs "
            "from the paper's in one unit. A pair counts as reversed if the confidence intervals "
            f"of p50 do not overlap; columns with fewer than {MIN_NETWORKS} common networks are "
            "not compared.",
        ),
    )


def _orders(found: Sequence[Comparison]) -> Table:
    """Returns the table of rank correlations."""
    header = ("Phone", "Source", "Here", "Networks", "Spearman", "Kendall", "Reversed here")
    rows = tuple(
        (
            each.paper.phone,
            each.paper.source,
            f"{each.rows[0].precision} in {each.rows[0].runtime}",
            str(len(each.rows)),
            f"{each.spearman:.2f}",
            f"{each.kendall:.2f}",
            _inverted(each),
        )
        for each in found
    )
    return Table(header=header, rows=rows, numeric=frozenset(header[3:6]))


def _inverted(each: Comparison) -> str:
    pairs = len(each.rows) * (len(each.rows) - 1) // 2
    if not each.inverted:
        return f"0 of {pairs}"
    named = ", ".join(f"{slow.model} before {fast.model}" for slow, fast in each.inverted[:_NAMED])
    more = len(each.inverted) - _NAMED
    return f"{len(each.inverted)} of {pairs}: {named}{f' and {more} more' if more > 0 else ''}"


def _figures(sweep: Sweep, precision: str) -> Table | None:
    """Returns the table of milliseconds, ours and published; None if there are none in common."""
    ours = _comparable(sweep, precision)
    here = {model for rows in ours.values() for model in rows}
    papers = [p for p in PAPER_PHONES if p.precision == precision and here & set(p.ms)]
    models = sorted(here & {model for paper in papers for model in paper.ms})
    if not models:
        return None
    header = (
        precision,
        *(f"{name} here, ms" for name in ours),
        *(f"{paper.phone} ({paper.source.partition(',')[0]})" for paper in papers),
    )
    rows = tuple(
        (
            model,
            *(ms(p50(rows[model])) if model in rows else MISSING for rows in ours.values()),
            *(f"{paper.ms[model]:.1f}" if model in paper.ms else "" for paper in papers),
        )
        for model in models
    )
    return Table(header=header, rows=rows, numeric=frozenset(header[1:]))
