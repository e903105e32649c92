"""Correlates costs with latency, and finds networks with fewer MACs but higher latency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

from bench.latency.costs import Costs
from bench.latency.paper_phones import papers_section
from bench.latency.record import PLACES, Place, Row, Sweep, latency, p50, threads, times
from bench.layers.record import Share
from bench.measure.spread import Spread
from bench.measure.timing import is_faster
from report.format import ms, percent
from report.section import Section, Table

MIN_NETWORKS = 4  # with fewer, a correlation means little
COSTS = {
    "MACs": "macs",
    "Parameters": "parameters",
    "Activations": "activations",
    "Bytes moved": "bytes_moved",
    "Kernels": "kernels",
}
EXPLAINED = "ort-cpu"  # the runtime whose kernels are profiled
_SENTENCES, _ROWS = 3, 12
_KINDS = 2  # most kinds of layers named in a sentence


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """The common conditions of networks that are compared."""

    runtime: str
    precision: str
    batch: int
    threads: int
    place: Place = "host"

    @classmethod
    def of(cls, row: Row, place: Place = "host") -> Setting:
        """Returns the setting of a row measured at ``place``."""
        assert row.runtime is not None, "a measured row has a runtime"
        return cls(
            runtime=row.runtime,
            precision=row.precision,
            batch=row.batch,
            threads=row.threads,
            place=place,
        )

    @property
    def title(self) -> str:
        """Returns the runtime, with the place unless host to host: ``ort-cuda (graph)``."""
        return self.runtime if self.place == "host" else f"{self.runtime} ({self.place})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Correlation:
    """The correlation of latency with a cost over the networks of a setting, in [-1, 1].

    Attributes:
        spearman: rank correlation (monotonic relation).
        pearson: correlation of the values (linear relation).
    """

    spearman: float
    pearson: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Inversion:
    """Two networks of a setting: the one with fewer MACs has a significantly higher latency.

    Attributes:
        slow: row with fewer MACs and the higher p50.
        fast: row with more MACs and the lower p50.
        macs: MACs of ``slow`` over MACs of ``fast``, below 1.
        latency: latency of ``slow`` over that of ``fast``, turn by turn; a text says why it is
            unknown.
    """

    slow: Row
    fast: Row
    macs: float
    latency: Spread | str


def settings(sweep: Sweep) -> dict[Setting, list[tuple[Row, Costs]]]:
    """Returns the measured rows and costs of each setting with at least MIN_NETWORKS networks."""
    costs = {row.network: row.costs for row in sweep.rows if row.costs}
    found: dict[Setting, list[tuple[Row, Costs]]] = {}
    for place in PLACES:
        for row in sorted(sweep.at(place).measured(), key=lambda row: (row.batch, row.threads)):
            if cost := costs.get(row.network):
                found.setdefault(Setting.of(row, place), []).append((row, cost))
    return {setting: rows for setting, rows in found.items() if len(rows) >= MIN_NETWORKS}


def correlate(rows: list[tuple[Row, Costs]]) -> dict[str, Correlation | None]:
    """Returns the correlation of p50 with each of :data:`COSTS`; None for a constant cost."""
    from scipy import stats  # half of what python -m bench would import

    latencies = [p50(row) for row, _ in rows]
    found: dict[str, Correlation | None] = {}
    for name, field in COSTS.items():
        values = [float(getattr(cost, field)) for _, cost in rows]
        constant = len(set(values)) == 1
        found[name] = (
            None
            if constant
            else Correlation(
                spearman=float(stats.spearmanr(values, latencies).statistic),
                pearson=float(stats.pearsonr(values, latencies).statistic),
            )
        )
    return found


def inversions(rows: list[tuple[Row, Costs]]) -> list[Inversion]:
    """Returns all inversions of a setting, the largest first.

    Two networks whose intervals of p50 overlap are a tie, not an inversion. The size is the ratio
    of latencies over the ratio of MACs.
    """
    found = []
    for pair in combinations(rows, 2):
        (slow, few), (fast, many) = sorted(pair, key=lambda one: one[1].macs)
        if few.macs < many.macs and is_faster(latency(fast), latency(slow)):
            found.append(
                Inversion(
                    slow=slow, fast=fast, macs=few.macs / many.macs, latency=times(slow, fast)
                )
            )
    return sorted(found, key=lambda one: one.macs * p50(one.fast) / p50(one.slow))


def cost_sections(
    sweep: Sweep, profiles: Mapping[tuple[str, int], Profile]
) -> list[Section | None]:
    """Returns :func:`correlation_section`, :func:`inversion_section` and :func:`papers_section`."""
    return [
        correlation_section(sweep),
        inversion_section(sweep, profiles),
        papers_section(sweep),
    ]


def correlation_section(sweep: Sweep) -> Section | None:
    """Returns a section on how well each cost predicts latency; None with too few networks."""
    groups = settings(sweep)
    if not groups:
        return None
    found = {setting: correlate(rows) for setting, rows in groups.items()}
    table = []
    for setting, rows in groups.items():
        cells = [
            "-" if one is None else f"{one.spearman:.2f} / {one.pearson:.2f}"
            for one in found[setting].values()
        ]
        pairs = len(rows) * (len(rows) - 1) // 2
        where = (setting.title, setting.precision, str(setting.batch), str(setting.threads))
        table.append((*where, str(len(rows)), *cells, f"{len(inversions(rows))} of {pairs}"))
    header = ("Runtime", "Precision", "Batch", "Threads", "Networks", *COSTS, "Inversions")
    return Section(
        title="What tells latency, and how well",
        sentences=(_best_rank(found),),
        tables=(Table(header=header, rows=tuple(table), numeric=frozenset(header[2:])),),
        notes=(
            "Correlations are Spearman's of the ranks / Pearson's of the values, of p50 with costs "
            "of the float32 graph at the artifact's input size, over networks. An inversion is a "
            "pair of which the network with fewer MACs has the higher p50, and their intervals do "
            "not overlap.",
        ),
    )


def _best_rank(found: dict[Setting, dict[str, Correlation | None]]) -> str:
    ranks = [{name: one.spearman for name, one in each.items() if one} for each in found.values()]
    macs = [each["MACs"] for each in ranks if "MACs" in each]
    if not macs:
        return "All networks have the same MACs: these cannot tell their latency."
    best = Counter(max(each, key=lambda name: each[name]) for each in ranks)
    (name, count), *_ = best.most_common()
    return (
        f"MACs rank the networks with a correlation of {min(macs):.2f} to {max(macs):.2f} to "
        f"latency, depending on runtime, precision and batch; 1 would be the same order. In "
        f"{count} of {len(found)} of these settings, what ranks them best is: {name}."
    )


class Profile(Protocol):
    """What an explanation of an inversion needs of a network's layer times."""

    @property
    def bytes(self) -> int:
        """Bytes that all layers move in a call."""

    def shares(self) -> Sequence[Share]:
        """Each kind of layer, with its fractions of MACs, bytes and time."""


def inversion_section(sweep: Sweep, profiles: Mapping[tuple[str, int], Profile]) -> Section | None:
    """Returns a section that explains the inversions of one setting; None without inversions.

    The setting is float32 in ONNX Runtime on the CPU, at the smallest batch size and fewest
    threads; if that has no inversions, the first setting with any.

    Args:
        sweep: the measured sweep.
        profiles: (network, batch size) to layer times of the float32 graph in ONNX Runtime.
    """
    found = {setting: inversions(rows) for setting, rows in settings(sweep).items()}
    found = {setting: pairs for setting, pairs in found.items() if pairs}
    if not found:
        return None
    setting = next((one for one in found if _is_explained(one)), next(iter(found)))
    pairs = found[setting]
    where = f"{setting.title} {setting.precision}, batch {setting.batch}, {threads(pairs[0].slow)}"
    costs = {row.network: row.costs for row in sweep.rows if row.costs is not None}
    rows = []
    for one in pairs[:_ROWS]:
        slow, fast = costs[one.slow.network], costs[one.fast.network]
        rows.append(
            (
                one.slow.network,
                one.fast.network,
                f"{one.macs:.2f}",
                "-" if isinstance(one.latency, str) else str(one.latency),
                f"{slow.bytes_moved / fast.bytes_moved:.2f}",
                f"{slow.kernels} / {fast.kernels}",
                f"{ms(p50(one.slow))} / {ms(p50(one.fast))}",
            )
        )
    header = (
        "Fewer MACs, slower", "More MACs, faster", "MACs", "Latency", "Bytes moved", "Kernels",
        "p50 ms",
    )  # fmt: skip
    return Section(
        title=f"Fewer MACs, more time ({where})",
        sentences=tuple(_inverted(one, profiles) for one in _distinct(pairs)[:_SENTENCES]),
        tables=(Table(header=header, rows=tuple(rows), numeric=frozenset(header[2:])),),
        notes=(
            "Columns MACs, Latency and Bytes moved of an inversion are ratios, the slower network "
            "over the faster one; of latencies turn by turn, and only within a run. Where the time "
            "of its layers goes is from ONNX Runtime's "
            "profiler, which itself slows small networks down; shares are of the profiled time.",
        ),
    )


def _is_explained(setting: Setting) -> bool:
    return setting.runtime == EXPLAINED and setting.precision == "fp32"


def _distinct(pairs: Sequence[Inversion]) -> list[Inversion]:
    """Returns the largest inversion of each slow network."""
    first: dict[str, Inversion] = {}
    for one in pairs:
        first.setdefault(one.slow.network, one)
    return list(first.values())


def _inverted(one: Inversion, profiles: Mapping[tuple[str, int], Profile]) -> str:
    slow, fast = one.slow.model, one.fast.model
    text = f"{slow} has {one.macs:.2f}x the MACs of {fast} and takes {_longer(one)}"
    profile = profiles.get((one.slow.network, one.slow.batch))
    if profile is None:
        return f"{text}."
    return f"{text}: {_where(profile, profiles.get((one.fast.network, one.fast.batch)), one.fast)}."


def _longer(one: Inversion) -> str:
    if isinstance(one.latency, str):
        return f"longer ({ms(p50(one.slow))} and {ms(p50(one.fast))} ms, in different runs)"
    turns = f"turns from {one.latency.low:.1f} to {one.latency.high:.1f}"
    return f"{one.latency.median:.1f}x as long ({turns})"


def _where(profile: Profile, other: Profile | None, fast: Row) -> str:
    """Returns a text on the kinds of layers whose share of the time exceeds that of the MACs."""
    shares = sorted(profile.shares(), key=lambda share: share.macs - share.time)[:_KINDS]
    shares = [share for share in shares if share.time > share.macs]
    kinds = {share.kind for share in shares}
    time, macs = sum(share.time for share in shares), sum(share.macs for share in shares)
    moved = sum(share.bytes for share in shares) * profile.bytes / 1e6
    text = (
        f"{percent(time, decimals=0)} of its time is in {' and '.join(s.kind for s in shares)} "
        f"layers, which do {percent(macs, decimals=0)} of its MACs and move {moved:.1f} MB"
    )
    if other is not None:
        there = sum(share.time for share in other.shares() if share.kind in kinds)
        text += f"; in {fast.model} they take {percent(there, decimals=0)}"
    return text
