"""The tables of the comparison with the peers, computed from its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from bench.latency.pick import preferred
from bench.measure.ratio import Ratio
from bench.measure.timing import Latency, decisive, overlap
from bench.peers.record import OURS, PeerRow
from bench.peers.registry import PEERS
from report.format import MISSING, ms, percent
from report.section import Section, Table

MOBILE = 1_000_000_000  # MACs: networks with fewer are for phones


@dataclass(frozen=True, slots=True)
class Standing:
    """A network's pick, and the fastest of the others that holds its gates.

    Attributes:
        ours: what ``pick`` would choose to serve.
        best: the fastest candidate of all peers; None if none ran.
        float32: their fastest in float32; None if none ran.
    """

    ours: PeerRow
    best: PeerRow | None
    float32: PeerRow | None

    @property
    def ratio(self) -> Ratio | None:
        """Returns the time of the best of the others over ours: above 1, ours is faster."""
        return _over(self.best, self.ours)

    @property
    def over_float32(self) -> Ratio | None:
        """Returns the time of their best float32 over ours."""
        return _over(self.float32, self.ours)

    @property
    def verdict(self) -> str:
        """Returns which is faster, in a word."""
        if self.best is None:
            return MISSING
        mine, other = _time(self.ours), _time(self.best)
        if overlap(mine, other):
            return "a tie"
        mine, other = decisive((mine, other))
        return "ours" if mine.p50 < other.p50 else "theirs"


def standings(rows: Sequence[PeerRow]) -> list[Standing]:
    """Returns the standing of each network of which one of our artifacts ran."""
    found = []
    for network in dict.fromkeys(row.network for row in rows):
        ran = [r for r in rows if r.network == network and r.latency and r.missed is None]
        ours = [row for row in ran if row.toolchain == OURS]
        theirs = [row for row in ran if row.toolchain != OURS]
        if ours:
            index, _ = preferred([row.precision for row in ours], [_time(row) for row in ours])
            plain = [row for row in theirs if row.precision == "fp32"]
            found.append(Standing(ours[index], _fastest(theirs), _fastest(plain)))
    return found


def peers_section(rows: Sequence[PeerRow]) -> Section:
    """Returns the section with all tables.

    Args:
        rows: those of one machine.
    """
    found = standings(rows)
    tables = (_standing_table(found), _toolchain_table(rows), *_left_out(rows))
    return Section(
        title="Beside other toolchains",
        sentences=tuple(_sentences(found)),
        tables=tuple(tables),
        notes=tuple(_notes(rows)),
    )


def _sentences(found: Sequence[Standing]) -> list[str]:
    compared = [one for one in found if one.ratio]
    if not compared:
        return ["No other toolchain ran: nothing is known but the reasons below."]
    words = [one.verdict for one in compared]
    ratios = [one.ratio.value for one in compared if one.ratio]
    sentences = [
        f"What is picked is faster than the best of the others on {words.count('ours')} of "
        f"{len(words)} networks, slower on {words.count('theirs')}, and ties on "
        f"{words.count('a tie')}; their best takes {geometric_mean(ratios):.2f} times as long "
        f"(geometric mean; {min(ratios):.2f} to {max(ratios):.2f})."
    ]
    mobile = [one.over_float32.value for one in found if one.over_float32 and _is_mobile(one)]
    if mobile:
        sentences.append(
            f"The best float32 of the others takes {geometric_mean(mobile):.2f} times as long as "
            f"the pick (geometric mean of {len(mobile)} networks with fewer than 1 G MACs; "
            f"{min(mobile):.2f} to {max(mobile):.2f})."
        )
    return sentences


def _standing_table(found: Sequence[Standing]) -> Table:
    header = (
        "Network", "Our pick", "ms", "Agreement", "Best of the others", "their ms",
        "their agreement", "times ours", "faster",
    )  # fmt: skip
    rows = []
    for one in found:
        ratio = one.ratio
        rows.append(
            (
                one.ours.network,
                one.ours.setting,
                *_figures(one.ours),
                one.best.title if one.best else MISSING,
                *(_figures(one.best) if one.best else (MISSING, MISSING)),
                f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else MISSING,
                one.verdict,
            )
        )
    numeric = frozenset({"ms", "Agreement", "their ms", "their agreement", "times ours"})
    return Table(header=header, rows=tuple(rows), numeric=numeric)


def _toolchain_table(rows: Sequence[PeerRow]) -> Table:
    """Returns the table of the fastest setting of each toolchain that holds its gates."""
    names = [OURS, *(name for name in PEERS if any(row.toolchain == name for row in rows))]
    lines = []
    for network in dict.fromkeys(row.network for row in rows):
        cells = [network]
        for name in names:
            best = _fastest(
                [
                    r
                    for r in rows
                    if (r.network, r.toolchain) == (network, name) and r.latency and not r.missed
                ]
            )
            cells.append(f"{_figures(best)[0]} {best.setting}" if best else MISSING)
        lines.append(tuple(cells))
    return Table(header=("Network, fastest in ms", *names), rows=tuple(lines))


def _left_out(rows: Sequence[PeerRow]) -> list[Table]:
    """Returns a table of what missed a gate or could not run, with why."""
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if why := row.reason or row.missed:
            reasons.setdefault((row.toolchain, row.setting, why), []).append(row.network)
    if not reasons:
        return []
    lines = tuple(
        (toolchain, setting, ", ".join(networks), why)
        for (toolchain, setting, why), networks in reasons.items()
    )
    return [Table(header=("Left out", "Setting", "Networks", "Why"), rows=lines)]


def _notes(rows: Sequence[PeerRow]) -> list[str]:
    if not rows:
        return []
    last = max(rows, key=lambda row: row.when)
    known = {**last.machine.versions}
    for row in rows:
        known |= {name.replace("-", "_"): version for name, version in row.tools.items()}
    versions = ", ".join(f"{name} {version}" for name, version in known.items())
    images = max(row.images for row in rows)
    clock = "CPU time" if all(r.latency.cpu_time for r in rows if r.latency) else "wall time"
    notes = [
        f"Measured on {last.machine.cpu}, {last.machine.cores} usable cores, {last.machine.os}, "
        f"{min(row.when for row in rows)} to {last.when}: p50 of {clock}, one image, one thread, "
        f"all candidates of a network by turns in one process. {versions}.",
        f"Agreement is that of the top-1 class with torch, of {images} held-out images. A pick "
        "holds the gates of its precision, and so must the others to be compared. Ties are by "
        "95 % intervals of p50.",
    ]
    if any(row.weights == "random" for row in rows):
        notes.append(
            "With random weights a level more or less changes the class, so agreement says little "
            "there, and no gate asks for it except in float32, whose logits have one."
        )
    return notes


def _figures(row: PeerRow) -> tuple[str, str]:
    assert row.agreement is not None, "what was measured was compared"
    return ms(_shown(row).p50), percent(row.agreement)


def _time(row: PeerRow) -> Latency:
    assert row.latency is not None, "only what ran is compared"
    return row.latency


def _shown(row: PeerRow) -> Latency:
    """Returns the CPU time of a row where it has one."""
    return decisive([_time(row)])[0]


def _fastest(rows: Sequence[PeerRow]) -> PeerRow | None:
    return min(rows, key=lambda row: _shown(row).p50, default=None)


def _over(other: PeerRow | None, ours: PeerRow) -> Ratio | None:
    return Ratio.of(_time(other), _time(ours)) if other else None


def _is_mobile(one: Standing) -> bool:
    return one.ours.macs < MOBILE
