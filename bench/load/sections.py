"""The report on a server under load: throughput relative to the in-process limit, and latency."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np

from bench.load.loops import Load, fixed_times, poisson_times
from bench.load.plan import BURST, Arrivals, Form, LoadPlan
from bench.load.record import LoadHeader, Turns, where
from bench.measure.spread import Spread
from bench.measure.timing import Latency
from report.format import ms, percent
from report.section import Section, Table

# Least fractions of the in-process limit, for the default images; other cases have no target.
TARGETS: dict[tuple[str, Form, int], float] = {
    ("500x375", "raw", 8): 0.93,
    ("500x375", "raw", 32): 0.95,
    ("1920x1080", "raw", 8): 0.90,
    ("1920x1080", "raw", 32): 0.90,
    ("500x375", "multipart", 8): 0.90,
    ("500x375", "multipart", 32): 0.90,
}
AFTER_BURST = 1.2  # limit of the ratio of a lone client's p50 after a burst to that before
TAIL, TAIL_SHARE = 2.0, 0.7  # limit of p99 over p50, at this fraction of the capacity
_REQUESTS = 20_000


def load_section(header: LoadHeader, turns: Turns) -> Section:
    """Returns the section on a load measurement."""
    plan, cores = header.plan, header.machine.cores
    images = list(dict.fromkeys(turn.images for turn in turns.all))
    ours = "our own client (bench/load/http_client.py)"
    client = f"wrk in closed loops, {ours} elsewhere" if header.client == "wrk" else ours
    return Section(
        title=f"{header.served.name} under load",
        sentences=(
            *_ratios(turns),
            *_tails(turns, plan, cores),
            _burst(turns),
            f"Answers: {statuses(turn.load for turn in turns.all)}.",
        ),
        tables=(_limits(images, turns), _closed(images, turns, plan), _open(turns, plan)),
        notes=(
            where(header),
            "In process: decode, resize and inference of the same images, without HTTP, in as "
            "many processes as cores, one single-threaded call after the other in each, while the "
            "server idles.",
            f"Closed loops and the in-process limit took turns of {plan.seconds:g} s in random "
            f"order, {plan.rounds} rounds. Throughput is the median of the rounds, the ratio the "
            "median of each round's ratio (least to greatest); percentiles are of all rounds.",
            f"Open loops took {plan.open_rounds} turns of {plan.open_seconds:g} s in random order; "
            "p99/p50 is the median of the turns' (least to greatest). "
            "Latency counts from when a request was due, whenever it could be sent. "
            "fixed: due evenly; poisson: at random times, as from many clients, so that requests "
            "wait for each other even in a server without any cost of its own. The best server "
            f"there can be is simulated: {cores} cores that take the same time for every "
            "image, first come, first served.",
            f"Sent by {client}, on the same processor as the server.",
        ),
    )


def _ratios(turns: Turns) -> list[str]:
    sentences = []
    for (images, form, connections), target in TARGETS.items():
        closed = turns.throughputs(what="closed", images=images, form=form, connections=connections)
        if closed:
            ratio = Spread.ratio(closed, turns.throughputs(what="in process", images=images))
            sentences.append(
                f"{images}, {form}, {connections} connections: {ratio} of the in-process limit; "
                f"at least {target:.2f} is asked: {ratio.at_least(target)}."
            )
    return sentences


def _tails(turns: Turns, plan: LoadPlan, cores: int) -> list[str]:
    sentences = []
    for arrivals in plan.arrivals:
        case = {"what": "open", "arrivals": arrivals, "share": TAIL_SHARE}
        if turns.latency(**case) is not None:
            tail = Spread.of(turns.tails(**case))
            ideal = ideal_tail(arrivals, TAIL_SHARE, cores)
            verdict = (
                f"at most {TAIL:g} is asked: {tail.at_most(TAIL)}"
                if ideal <= TAIL
                else f"at most {TAIL:g} is out of reach"
            )
            sentences.append(
                f"At {percent(TAIL_SHARE, decimals=0)} load, {arrivals} arrivals: p99 is "
                f"{tail} times p50, and {ideal:.2f} times in the best server there can be; "
                f"{verdict}."
            )
    return sentences


def _burst(turns: Turns) -> str:
    before, after = turns.latency(what="before"), turns.latency(what="after")
    if before is None or after is None:
        return "A lone client had no good answer before or after the burst."
    ratio = after.p50 / before.p50
    return (
        f"A lone client: p50 {ms(before.p50)} ms before a burst of {BURST} connections, "
        f"{ms(after.p50)} ms after it, {ratio:.2f} times; at most {AFTER_BURST:g} is asked: "
        f"{'met' if ratio <= AFTER_BURST else 'missed'}."
    )


def _limits(images: Sequence[str], turns: Turns) -> Table:
    header = ("Images", "In process, images/s", "least", "greatest")
    rows = []
    for name in images:
        spread = Spread.of(turns.throughputs(what="in process", images=name))
        rows.append((name, *(f"{v:,.1f}" for v in (spread.median, spread.low, spread.high))))
    return Table(header=header, rows=tuple(rows), numeric=frozenset(header[1:]))


def _closed(images: Sequence[str], turns: Turns, plan: LoadPlan) -> Table:
    header = (
        *("Images", "Sent", "Connections", "Images/s", "Of the limit"),
        *("p50 ms", "p95 ms", "p99 ms", "Answers"),
    )
    rows = []
    for name, form, connections in product(images, plan.forms, plan.connections):
        case = {"what": "closed", "images": name, "form": form, "connections": connections}
        throughputs = turns.throughputs(**case)
        ratio = Spread.ratio(throughputs, turns.throughputs(what="in process", images=name))
        cells = (name, form, str(connections), f"{Spread.of(throughputs).median:,.1f}", str(ratio))
        times = percentiles(turns.latency(**case), 50, 95, 99)
        rows.append((*cells, *times, statuses(turns.loads(**case))))
    return Table(header=header, rows=tuple(rows), numeric=frozenset(header[2:8]))


def _open(turns: Turns, plan: LoadPlan) -> Table:
    header = ("Arrivals", "Load", "Requests/s", "p50 ms", "p99 ms", "p99/p50", "Answers")
    rows = []
    for arrivals, share in product(plan.arrivals, plan.shares):
        case = {"what": "open", "arrivals": arrivals, "share": share}
        latency, loads = turns.latency(**case), turns.loads(**case)
        rate = sum(sum(load.statuses.values()) for load in loads) / (plan.open_seconds * len(loads))
        tail = "-" if latency is None else str(Spread.of(turns.tails(**case)))
        cells = (arrivals, percent(share, decimals=0), f"{rate:,.1f}")
        rows.append((*cells, *percentiles(latency, 50, 99), tail, statuses(loads)))
    return Table(header=header, rows=tuple(rows), numeric=frozenset(header[1:6]))


def percentiles(latency: Latency | None, *percents: int) -> tuple[str, ...]:
    """Returns percentiles in ms as text; dashes if there are no latencies."""
    if latency is None:
        return ("-",) * len(percents)
    return tuple(ms(latency.percentile(each)) for each in percents)


def statuses(loads: Iterable[Load]) -> str:
    """Returns the count of each status as text: ``200 x 1,234, 429 x 5``."""
    counts: Counter[str] = Counter()
    for load in loads:
        counts.update(load.statuses)
    return ", ".join(f"{status} x {count:,}" for status, count in sorted(counts.items())) or "none"


def ideal_tail(arrivals: Arrivals, share: float, cores: int) -> float:
    """Simulates an ideal server and returns p99 over p50 of its latency.

    It is a D/D/c or M/D/c queue: first come, first served, ``cores`` servers with the same constant
    service time, at a utilisation of ``share`` (below 1).
    """
    rate = share * cores  # a core answers one image per unit of time
    seconds = _REQUESTS / rate
    times = fixed_times(rate, seconds)
    if arrivals == "poisson":
        times = poisson_times(rate, seconds, seed=0)
    low, high = np.percentile(_latencies(times, cores), [50, 99])
    return float(high / low)


def _latencies(times: Sequence[float], cores: int) -> list[float]:
    free = [0.0] * cores  # time at which each core is idle again
    found = []
    for due in times:
        ready = max(due, heapq.heappop(free)) + 1.0
        heapq.heappush(free, ready)
        found.append(ready - due)
    return found
