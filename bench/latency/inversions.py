"""Networks with fewer MACs that take longer, by name, and where their time goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from bench.latency.correlation import Inversion, Setting, inversions, settings
from bench.latency.rows import Row, Sweep, p50
from bench.latency.table import threads
from bench.layers.layers import Share
from report.format import ms, percent
from report.section import Section, Table

EXPLAINED = "ort-cpu"  # the runtime whose kernels are profiled
_SENTENCES, _ROWS = 3, 12
_KINDS = 2  # kinds of layers that a sentence names


class Profile(Protocol):
    """What is asked of the measured layers of a network."""

    @property
    def bytes(self) -> int:
        """Bytes that all its layers move, in a call."""

    def shares(self) -> Sequence[Share]:
        """The share of each kind of layer in MACs, bytes and time."""


def inversion_section(sweep: Sweep, profiles: Mapping[tuple[str, int], Profile]) -> Section | None:
    """Returns the inversions of one setting, explained; None where there is none.

    The setting is float32 in ONNX Runtime on the CPU, at the smallest batch and fewest threads, or
    else the first there is.

    Args:
        sweep: what was measured.
        profiles: measured layers of float32 graphs in ONNX Runtime, by network and batch.
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
        sentences=tuple(_sentence(one, profiles) for one in _distinct(pairs)[:_SENTENCES]),
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
    """Returns the most surprising inversion of each network that is slower than its MACs say."""
    first: dict[str, Inversion] = {}
    for one in pairs:
        first.setdefault(one.slow.network, one)
    return list(first.values())


def _sentence(one: Inversion, profiles: Mapping[tuple[str, int], Profile]) -> str:
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
    """Returns which kinds of layers take a larger part of the time than of the MACs."""
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
