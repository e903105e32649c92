"""The report of a run on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.device.measure import Measured
from bench.device.record import Turn
from bench.device.tools import TOOLS
from bench.latency.paper_phones import papers_section
from bench.latency.prose import unmeasured
from bench.latency.record import Row, Sweep, latency, p50, title, top1
from core.cli import results
from report.format import MISSING, ms, plural
from report.section import Report, Section, Table
from report.terminal import show_report
from report.write import write_report

NAME = "phone"
_COLUMNS = (
    "Network", "Artifact", "Cores", "Batch", "Threads", "p50 ms", "95 % interval", "p95 ms",
    "Calls", "Top-1", "File MB", "Notes",
)  # fmt: skip
_NUMERIC = frozenset(_COLUMNS[3:11])


def phone_report(measured: Measured) -> Report:
    """Returns the report of a run on a phone."""
    sweeps = measured.sweeps
    first = next(iter(sweeps.values()))
    rows = [(name, row) for name, sweep in sweeps.items() for row in sweep.measured()]
    rows.sort(key=lambda pair: (pair[1].network, pair[1].batch, p50(pair[1])))
    table = Table(
        header=_COLUMNS,
        rows=tuple(_cells(sweeps[name], name, row, measured.turns) for name, row in rows),
        numeric=_NUMERIC,
    )
    networks = first.networks()
    what = networks[0] if len(networks) == 1 else f"{len(networks)} networks"
    return Report(
        name=NAME,
        title=f"Latency of {what} on a phone",
        subtitle=" · ".join((first.machine.cpu.partition(":")[0], f"cores: {', '.join(sweeps)}")),
        summary=tuple(_summary(measured, rows)),
        terminal=None if rows else _reasons(measured),
        lead=table if rows else None,
        sections=tuple(filter(None, _sections(measured))),
        facts=_facts(measured),
        method=tuple(_method(first)),
    )


def show_phone(measured: Measured, folder: Path, *, every: bool = False) -> None:
    """Writes the report into ``folder``, prints what it found and where it is.

    Args:
        measured: on the phone.
        folder: for the report.
        every: print all rows and sections, where a screen has no room for them.
    """
    report = phone_report(measured)
    files = write_report(report, folder)
    show_report(report, every=every)
    results().print(files.html)


def _sections(measured: Measured) -> list[Section | None]:
    papers = [papers_section(sweep, f": {name}") for name, sweep in measured.sweeps.items()]
    return [_not_measured(measured), *papers, _heat(measured)]


def _summary(measured: Measured, rows: Sequence[tuple[str, Row]]) -> list[str]:
    if not rows:
        return ["Nothing could be measured on this phone; the table says why not."]
    sentences = []
    for name, sweep in measured.sweeps.items():
        best = [
            min(found, key=p50)
            for network in sweep.networks()
            if (found := sweep.measured(network, batch=1))
        ]
        if best:
            fastest = min(best, key=p50)
            sentences.append(
                f"On {name} cores, the fastest of {plural(len(best), 'network')} at batch 1 is "
                f"{fastest.network} as {title(fastest)}: {ms(p50(fastest))} ms an image."
            )
    marked = [turn for turn in measured.turns if turn.throttled or not turn.cool]
    if marked:
        sentences.append(
            f"{len(marked)} of {plural(len(measured.turns), 'turn')} started too warm or were "
            "throttled: let the phone cool down and measure again."
        )
    return sentences


def _cells(sweep: Sweep, cores: str, row: Row, turns: Sequence[Turn]) -> tuple[str, ...]:
    found = latency(row)
    low, high = found.interval
    return (
        row.network,
        title(row),
        cores,
        str(row.batch),
        str(row.threads),
        ms(found.p50),
        f"{ms(low)} to {ms(high)}",
        ms(found.p95) if row.averaged is None else MISSING,
        f"{found.count * (row.averaged or 1):,}",
        top1(row),
        MISSING if row.size is None else f"{row.size / 1e6:.1f}",
        "; ".join(_notes(sweep, cores, row, turns)),
    )


def _notes(sweep: Sweep, cores: str, row: Row, turns: Sequence[Turn]) -> list[str]:
    notes = []
    if row.averaged is not None:
        notes.append(f"means of {plural(row.averaged, 'call')}")
    if not TOOLS[row.format].real:
        notes.append("not the artifact's weights")
    if row.unverified is not None:
        notes.append(f"unverified: {row.unverified}")
    if row.weights == "random":
        notes.append("random weights")
    own = [turn for turn in turns if (turn.key, turn.cores) == (row.key, cores)]
    if not any(turn.compared for turn in own):
        notes.append("answers not compared")
    if throttled := sum(turn.throttled for turn in own):
        notes.append(f"throttled in {plural(throttled, 'turn')}")
    if warm := sum(not turn.cool for turn in own):
        notes.append(f"warm in {plural(warm, 'turn')}")
    if ties := sweep.tied(row):
        notes.append("tie with " + ", ".join(f"{tie.runtime} {tie.precision}" for tie in ties))
    return notes


def _not_measured(measured: Measured) -> Section | None:
    """Returns the section of what has no latency, or None where everything has one."""
    table = _reasons(measured)
    return Section(title="Not measured", tables=(table,)) if table.rows else None


def _reasons(measured: Measured) -> Table:
    """Returns the table of what has no latency, and why not."""
    lines = [
        (network, artifact, name, batches, reason)
        for name, sweep in measured.sweeps.items()
        for network, artifact, _, batches, reason in unmeasured(sweep)
    ]
    return Table(header=("Network", "Artifact", "Cores", "Batch", "Why not"), rows=tuple(lines))


def _heat(measured: Measured) -> Section | None:
    """Returns the section on clocks and temperatures, or None without turns."""
    rows = []
    for name in measured.sweeps:
        turns = [turn for turn in measured.turns if turn.cores == name]
        states = [state for turn in turns for state in (turn.before, turn.after)]
        if turns:
            rows.append(
                (
                    name,
                    str(len(turns)),
                    _range([state.mhz for state in states]),
                    _range([state.cap_mhz for state in states]),
                    _range([state.celsius for state in states]),
                    _range([turn.waited for turn in turns]),
                    str(sum(not turn.cool for turn in turns)),
                    str(sum(turn.throttled for turn in turns)),
                )
            )
    if not rows:
        return None
    header = (
        "Cores", "Turns", "Clock MHz", "Clock limit MHz", "Processor °C", "Waited s",
        "Started warm", "Throttled",
    )  # fmt: skip
    return Section(
        title="Clocks and temperatures",
        tables=(Table(header=header, rows=tuple(rows), numeric=frozenset(header[1:])),),
        notes=(
            "Clocks and temperatures are read before and after each turn, not during it; the table "
            "shows their ranges. A turn counts as throttled if Android reports throttling, or if "
            "the clock limit of its cores was lowered.",
        ),
    )


def _range(values: Sequence[float | None]) -> str:
    told = [value for value in values if value is not None]
    return f"{min(told):,.0f} to {max(told):,.0f}" if told else "not reported"


def _facts(measured: Measured) -> list[tuple[str, str]]:
    first = next(iter(measured.sweeps.values()))
    machine = first.machine
    memory = "unknown" if machine.memory is None else f"{machine.memory / 2**30:.1f} GiB"
    tools = ", ".join(f"{name} sha256 {digest}..." for name, digest in machine.versions.items())
    return [
        ("Phone", machine.cpu.partition(":")[0]),
        *(
            (f"Cores: {name}", f"{sweep.machine.cpu.partition(': ')[2]}, "
             f"governor {sweep.machine.governor or 'not reported'}")
            for name, sweep in measured.sweeps.items()
        ),
        ("Memory", memory),
        ("System", f"{machine.os}, kernel {machine.kernel}"),
        ("Tools", tools),
        ("Measured", f"{first.before.when} to {first.after.when}"),
    ]  # fmt: skip


def _method(sweep: Sweep) -> list[str]:
    plan = sweep.plan
    return [
        "Each turn is a process on the phone: the runtime's own tool, pinned by taskset to the "
        "cores of one cluster, with the artifact's golden images as input. It makes untimed calls "
        "for half a second, then timed ones, from inputs in memory to outputs in memory. If the "
        "tool can write its outputs, the phone must reproduce the artifact's golden logits before "
        "it is timed; otherwise the row notes that they were not compared.",
        f"All candidates are interleaved in {plan.rounds} rounds, in a new random order each (seed "
        f"{plan.seed}); at least {plan.count} calls and {plan.seconds:g} s per candidate in total, "
        f"but slow ones stop at {plan.limit:g} s. A turn starts once the processor has cooled down "
        "and Android does not throttle, or when the waiting time is over.",
        "p50 is the median of all calls. If a tool reports only the mean of a turn, it is the "
        "median of these means, and there is no p95. The interval is a 95 % bootstrap interval of "
        "p50 that draws whole turns. Two candidates whose intervals overlap are a tie.",
        "benchncnn does not load the artifact's weights, but fills the network with its own.",
    ]
