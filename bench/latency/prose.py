"""The sentences and tables of a sweep's report, computed from its rows."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import geometric_mean, median

from bench.latency.machine_facts import machine_facts
from bench.latency.pick import Pick
from bench.latency.record import FRESH, Row, Sweep, p50, threads, title, top1
from bench.measure.spread import Spread
from bench.measure.timing import is_complete
from report.format import MISSING, millions, ms, percent
from report.section import Report, Section, Table

NAME = "latency"
Cells = dict[int, dict[str, str]]  # id of a row -> column of COLUMNS -> text of the cell
# Columns that fit a terminal; the report has all.
_SHOWN = ("Precision", "Runtime", "Batch", "p50 ms", "p99 ms", "x faster", "Top-1")
Missing = tuple[str, str, str, str, str]  # columns of _UNMEASURED
_UNMEASURED = ("Network", "Artifact", "Runtime", "Batch", "Why not")
# Standard deviation over mean above which a row is marked as noisy: its tail is due to the machine.
NOISY = 0.25
_WAITED = 1.1  # wall over CPU time above which a row's note gives the latter
COLUMNS = (
    "Network",
    "Precision",
    "Runtime",
    "Batch",
    "Threads",
    "p50 ms",
    "95 % interval",
    "p95 ms",
    "p99 ms",
    "Calls",
    "x faster",
    "GMACs/s",
    "Top-1",
    "File MB",
    "Notes",
)
NUMERIC = frozenset(COLUMNS[3:14])


def in_words(sweep: Sweep, picks: dict[str, Pick], *, folded: bool = False) -> Report:
    """Returns the report of ``sweep`` without charts and explaining sections.

    Args:
        sweep: the measured sweep.
        picks: network to its pick.
        folded: whether the table of all rows is collapsed on the HTML page.
    """
    rows = [row for batch in sweep.batches() for row in sweep.measured(batch=batch)]
    cells = {id(row): measured_cells(sweep, row, picks) for row in rows}
    missing = unmeasured(sweep)
    single = len(sweep.networks()) == 1
    return Report(
        name=NAME,
        title=headline(sweep),
        subtitle=subtitle(sweep),
        summary=tuple(summary(sweep, picks)),
        lead=picks_table(sweep, picks) if rows else missing_table(missing),
        terminal=_terminal_table(sweep, rows, cells, picks) if single and rows else None,
        footnotes=_not_measured(missing) if rows else (),
        sections=tuple(_rows_sections(sweep, cells, picks, missing, folded=folded)),
        facts=[
            *machine_facts(sweep.machine, sweep.before, sweep.after),
            ("Measured", f"{sweep.before.when} to {sweep.after.when}{_reused(sweep)}"),
        ],
        method=tuple(method(sweep)),
    )


def _rows_sections(
    sweep: Sweep, cells: Cells, picks: dict[str, Pick], missing: Sequence[Missing], *, folded: bool
) -> list[Section]:
    """Returns the tables of measured rows, grouped by network and batch size, and of the others."""
    groups = [
        rows
        for network in sweep.networks()
        for batch in sweep.batches()
        if (rows := sweep.measured(network, batch))
    ]
    rows = [row for group in groups for row in group]
    sections = []
    if rows:
        table = Table(
            header=COLUMNS,
            rows=tuple(tuple(cells[id(row)].values()) for row in rows),
            numeric=NUMERIC,
            groups=tuple(map(len, groups)),
            strong=_picked(rows, picks),
        )
        fold = f"All {len(rows)} rows" if folded else ""
        sections.append(Section(title="What was measured", tables=(table,), folded=fold))
    if rows and missing:
        sections.append(Section(title="Not measured", tables=(missing_table(missing),)))
    return sections


def _terminal_table(
    sweep: Sweep, rows: Sequence[Row], cells: Cells, picks: dict[str, Pick]
) -> Table:
    shown = _SHOWN if len(sweep.threads()) == 1 else (*_SHOWN[:3], "Threads", *_SHOWN[3:])
    if _runs(sweep):  # those of a quick run have fewer
        shown = (*shown, "Calls")
    return Table(
        header=shown,
        rows=tuple(tuple(cells[id(row)][name] for name in shown) for row in rows),
        numeric=NUMERIC,
        strong=_picked(rows, picks),
    )


def _picked(rows: Sequence[Row], picks: dict[str, Pick]) -> frozenset[int]:
    """Returns the indices of the picked rows."""
    return frozenset(
        number for number, row in enumerate(rows) if any(pick.row is row for pick in picks.values())
    )


def _not_measured(missing: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Returns a footnote with the number of unmeasured rows and the first reason; () if none."""
    if not missing:
        return ()
    reasons = list(dict.fromkeys(reason for *_, reason in missing))
    more = f", and {len(reasons) - 1} other reasons" if len(reasons) > 1 else ""
    count = sum(batches.count(",") + 1 for *_, batches, _ in missing)
    return (f"{count} more not measured here ({reasons[0]}{more}); --all lists them",)


def headline(sweep: Sweep) -> str:
    """Returns the title of the report."""
    networks = sweep.networks()
    what = networks[0] if len(networks) == 1 else f"{len(networks)} networks"
    return f"Latency of {what}"


def subtitle(sweep: Sweep) -> str:
    """Returns the line below the title: MACs, processor, threads."""
    counts = sorted({row.macs for row in sweep.rows if row.macs is not None})
    parts = [f"{millions(counts[0])} MACs per image"] if len(counts) == 1 else []
    parts.append(sweep.machine.gpu or sweep.machine.cpu)
    parts.append(_numbers(sweep.threads(), "thread"))
    if {row.weights for row in sweep.rows if row.weights} == {"random"}:
        parts.append("random weights: good for latency only")
    return " · ".join(parts)


def summary(sweep: Sweep, picks: dict[str, Pick]) -> list[str]:
    """Returns the findings in sentences, computed from the rows."""
    if not sweep.measured():
        return ["Nothing could be measured on this machine; the table says why not."]
    networks = sweep.networks()
    if len(networks) == 1:
        sentence = _network_sentence(sweep, picks.get(networks[0]), networks[0])
        return [sentence, *filter(None, [_spread(sweep), _runs(sweep)])]
    found = [sweep.times_torch(best.row) for best in picks.values()]
    gains = [gain for gain in found if isinstance(gain, Spread)]
    sentences = [
        "Torch eager was not measured beside what a server could use: how much faster that is, "
        "is not known."
    ]
    if gains:
        values = [gain.median for gain in gains]
        turns = f"{min(g.low for g in gains):.1f} to {max(g.high for g in gains):.1f}"
        sentences = [
            f"Over {len(gains)} networks, what was picked answers one image "
            f"{geometric_mean(values):.1f} times faster than torch eager (geometric mean; "
            f"{min(values):.1f} to {max(values):.1f}; single turns {turns})."
        ]
    return [*sentences, *filter(None, [_runs(sweep)])]


def picks_table(sweep: Sweep, picks: dict[str, Pick]) -> Table | None:
    """Returns the table of picks; None for a single network, whose pick is in the summary."""
    if len(sweep.networks()) == 1:
        return None
    rows: list[tuple[str, ...]] = []
    for network in sweep.networks():
        if best := picks.get(network):
            gain, eager = sweep.times_torch(best.row), sweep.eager(best.row)
            rows.append(
                (
                    network,
                    title(best.row),
                    str(best.row.threads),
                    ms(p50(best.row)),
                    ms(p50(eager)) if eager else MISSING,
                    MISSING if isinstance(gain, str) else str(gain),
                    top1(best.row),
                    best.tied if best.ties else "",
                )
            )
        else:
            rows.append((network, "nothing that a server could use was measured", *[""] * 6))
    header = (
        "Network",
        "Serve",
        "Threads",
        "p50 ms",
        "torch ms",
        "x faster",
        "Top-1",
        "A tie with",
    )
    return Table(header=header, rows=tuple(rows), numeric=frozenset(header[2:7]))


def _runs(sweep: Sweep) -> str | None:
    """Returns the sentence on rows of several runs, or None if all are of one run."""
    runs = {row.when for row in sweep.measured()}
    if len(runs) < 2:
        return None
    return (
        f"The rows are of {len(runs)} runs. A machine is faster in one run than in another, by a "
        "third here and there: ratios are of rows of one run only, and order between runs may be "
        f"the machine's. {FRESH} measures all in one run."
    )


def _network_sentence(sweep: Sweep, best: Pick | None, network: str) -> str:
    if best is None:
        return f"{network}: no candidate that a server could use was measured at batch 1."
    row = best.row
    gain, eager = sweep.times_torch(row), sweep.eager(row)
    text = f"On this machine {network} is best served as {title(row)}: {ms(p50(row))} ms an image"
    if len(sweep.threads()) > 1:
        text += f" with {threads(row)}"
    if eager and isinstance(gain, Spread):
        turns = f"; turns from {gain.low:.1f} to {gain.high:.1f}"
        text += f", {gain.median:.1f} times faster than torch eager ({ms(p50(eager))} ms{turns})"
    if best.ties:
        text += f". It ties with {best.tied}; among ties the highest precision is taken"
    if row.weights == "random":
        text += ". Its weights are random: how accurate it is with trained ones, this does not tell"
    return text + "."


def _spread(sweep: Sweep) -> str | None:
    """Returns the sentence on the range of MACs per second of a network; None with one row."""
    rated = [(rate, row) for row in sweep.measured(batch=1) if (rate := row.rate)]
    if len(rated) < 2:
        return None
    (low, slow), (high, fast) = (f(rated, key=lambda pair: pair[0]) for f in (min, max))
    count = millions(fast.macs) if fast.macs else "the same number of"
    return (
        f"Every candidate does {count} MACs per image, yet they reach {low / 1e9:.1f} "
        f"({slow.runtime}, {slow.precision}) to {high / 1e9:.1f} GMACs/s ({fast.runtime}, "
        f"{fast.precision}): the count alone does not say what an image costs."
    )


def measured_cells(sweep: Sweep, row: Row, picks: dict[str, Pick]) -> dict[str, str]:
    """Returns the text of each of :data:`COLUMNS` for a measured row."""
    latency = row.latency
    assert latency is not None, "rows without a latency have other columns"
    low, high = latency.interval
    eager, times, rate = sweep.eager(row), sweep.times_torch(row), row.rate
    return dict(
        zip(
            COLUMNS,
            (
                row.network,
                row.precision,
                str(row.runtime),
                str(row.batch),
                str(row.threads),
                ms(latency.p50),
                f"{ms(low)} to {ms(high)}",
                ms(latency.p95),
                ms(latency.p99),
                f"{latency.count:,}",
                MISSING if isinstance(times, str) else "1.00" if row is eager else str(times),
                MISSING if rate is None else f"{rate / 1e9:.1f}",
                top1(row),
                MISSING if row.size is None else f"{row.size / 1e6:.1f}",
                "; ".join(_notes(sweep, row, picks)),
            ),
            strict=True,
        )
    )


def unmeasured(sweep: Sweep) -> list[Missing]:
    """Returns (network, artifact, runtime, batches, reason) of the rows without a latency.

    Batch sizes with the same reason are merged into one line.
    """
    lines: dict[tuple[str, str, str, str], list[int]] = {}
    for row in sweep.rows:
        if row.latency is None:
            what = (row.network, f"{row.format}-{row.precision}", row.runtime or "any")
            lines.setdefault((*what, row.reason or "no reason given"), []).append(row.batch)
    return [
        (network, artifact, runtime, ", ".join(map(str, batches)), reason)
        for (network, artifact, runtime, reason), batches in lines.items()
    ]


def missing_table(missing: Sequence[Missing]) -> Table:
    """Returns the table of what :func:`unmeasured` returns."""
    return Table(header=_UNMEASURED, rows=tuple(missing), numeric=NUMERIC)


def _notes(sweep: Sweep, row: Row, picks: dict[str, Pick]) -> list[str]:
    notes = []
    pick = picks.get(row.network)
    if pick and pick.row is row:
        notes.append("served")
    if row.when < sweep.before.when:
        notes.append("earlier run")
    if row.weights == "random" and len(sweep.networks()) > 1:
        notes.append("random weights")  # for a single network the subtitle says so
    if row.unverified is not None:
        notes.append(f"unverified: {row.unverified}")
    if row.latency and row.latency.variation > NOISY:
        notes.append(f"noisy ({percent(row.latency.variation, decimals=0)})")
    if row.latency and (used := row.latency.cpu_time) and row.latency.p50 > _WAITED * used.p50:
        notes.append(f"CPU time {ms(used.p50)} ms")
    if row.latency and not is_complete(row.latency, sweep.plan):
        notes.append(f"unfinished: {row.latency.count:,} of {sweep.plan.count:,} calls")
    if sweep.eager(row) and isinstance(times := sweep.times_torch(row), str):
        notes.append(times)
    first, ties = sweep.peers(row)[0], sweep.tied(row)
    if row is first and ties:
        notes.append("tie with " + ", ".join(f"{tie.runtime} {tie.precision}" for tie in ties))
    elif first in ties:
        notes.append("tied for fastest")
    return notes


def method(sweep: Sweep) -> list[str]:
    """Returns how the figures were measured, in sentences."""
    plan = sweep.plan
    return [
        "Latency is seconds per call, by wall clock, from uint8 pixels on the host to float32 "
        "logits on the host; shown in ms. The pixels are the artifact's golden images, repeated "
        f"to fill a batch. Inside one call: {_numbers(sweep.threads(), 'thread')} of the CPU.",
        "Before it is timed, a candidate must reproduce the artifact's golden answers. Nothing "
        "falls back to another runtime: what cannot run is listed with its reason.",
        f"All candidates take turns: {plan.rounds} rounds, a new random order in each (seed "
        f"{plan.seed}). A turn is two untimed calls, then timed ones; at least {plan.count} "
        f"samples and {plan.seconds:g} s per candidate in all, but a slow one stops at "
        f"{plan.limit:g} s with fewer: the column Calls counts them. Before the first round each "
        "is called until the median of five calls is no longer 5 % below that of the five before, "
        f"or for {plan.warmup_seconds:g} s."
        + (f" What ties for the fastest takes up to {plan.extra} more rounds." * bool(plan.extra)),
        "p50, p95 and p99 are percentiles of all raw samples, none dropped. The interval is a "
        "95 % bootstrap interval of p50 that draws whole turns. Two candidates whose intervals "
        "overlap are a tie. A row is noisy where the standard deviation exceeds "
        f"{NOISY * 100:g} % of the mean.",
        *_cpu_times(sweep),
        "x faster: p50 of torch eager over p50 of the row at the same batch size, turn by turn: "
        "the median, and the least and the greatest of the turns. Only rows of one run are divided "
        "by each other, as a machine is faster in one run than in another. "
        "GMACs/s is MACs per image x batch / p50: the rate that was reached. MACs are those of the "
        "fp32 network; FLOPs = 2 x MACs. On a CPU, OpenVINO computes fp32 and int8 graphs in fp32 "
        "where they are not quantised (never bfloat16), and ONNX Runtime has no fp16 "
        "convolutions: it converts an fp16 graph to fp32 as it runs. LiteRT restores weights that "
        "are stored in fp16 to fp32 as it loads them. ncnn has no batches: it runs their images "
        "one by one, each in a thread.",
        "Top-1 is measured on the artifact itself, on images it was not trained on.",
    ]


def _cpu_times(sweep: Sweep) -> list[str]:
    """Returns the sentence on what decides between rows of one thread; none if CPU times lack."""
    times = [row.latency for row in sweep.measured() if row.latency and row.latency.cpu_time]
    if not times:
        return []
    waited = median(time.p50 / time.cpu_time.p50 for time in times if time.cpu_time)
    return [
        "Where one thread of a CPU computes, the CPU time of each call is kept, too. It decides "
        "ties, picks and ratios among such rows, as it hardly depends on what else the machine "
        f"does; p50 by wall clock is {waited:.2f} times p50 of CPU time here, in the median row."
    ]


def _reused(sweep: Sweep) -> str:
    """Returns how many rows are of earlier runs, not interleaved with the last; empty if none."""
    earlier = sorted(row.when for row in sweep.measured() if row.when < sweep.before.when)
    if not earlier:
        return ""
    return f"; {len(earlier)} of {len(sweep.measured())} rows in earlier runs, from {earlier[0]} on"


def _numbers(values: list[int], noun: str) -> str:
    """Returns numbers with what they count, such as ``1, 2 threads``."""
    return f"{', '.join(map(str, values))} {noun}{'s' if values != [1] else ''}"
