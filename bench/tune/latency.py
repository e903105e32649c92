"""The latency of the networks of a search: of an earlier benchmark, or measured now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.experiment import progress_bars, this_machine
from bench.latency.record import FILE, read_sweep
from bench.measure.timing import Latency, Plan, measure
from bench.tune.plan import Candidate
from core.errors import UserError
from report.format import ms

RUNTIME = "ort-cpu"
_PLAN = Plan(count=100, seconds=1.0, limit=2.0, rounds=8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """The latency of a network: one image per call, one thread, float32, in ONNX Runtime.

    Attributes:
        p50_s: median in seconds.
        p99_s: 99th percentile.
        calls: number of timed calls.
        source: where it is from, as text.
    """

    p50_s: float
    p99_s: float
    calls: int
    source: str


def speeds(
    candidates: Sequence[Candidate], data: str, classes: int, reports: Path
) -> dict[str, Speed]:
    """Returns the latency of each network, by its name.

    It is that of its artifact for these data in ``reports/latency.jsonl``, if this machine measured
    it there with the same versions, else of its layers with random weights, measured now in turns.

    Args:
        candidates: the networks.
        data: name of the data set.
        classes: number of classes.
        reports: folder of the measurements.
    """
    found = _stored(candidates, data, reports)
    rest = [each for each in candidates if each.model not in found]
    if rest:
        found |= _measured(rest, classes)
    return {each.model: found[each.model] for each in candidates}


def within(
    candidates: Sequence[Candidate],
    known: dict[str, Speed],
    p99: float | None,
    given: str = "",
) -> list[Candidate]:
    """Returns the networks whose 99th percentile is at most ``p99`` seconds; None for no limit.

    Args:
        candidates: networks with their recipes.
        known: latency of each.
        p99: limit in seconds.
        given: the limit as a user gave it, for errors.

    Raises:
        UserError: there is none.
    """
    able = [each for each in candidates if p99 is None or known[each.model].p99_s <= p99]
    if not able:
        assert p99 is not None
        fastest = min(known, key=lambda name: known[name].p99_s)
        raise UserError(
            f"--p99 {given or f'{ms(p99)} ms'}: no network is within it here; the fastest of "
            f"{len(known)} is {fastest} with {ms(known[fastest].p99_s)} ms: allow more, or "
            "add --models or a smaller --size"
        )
    return able


def _stored(candidates: Sequence[Candidate], data: str, reports: Path) -> dict[str, Speed]:
    if not (reports / FILE).exists():
        return {}
    key, models = this_machine().key, {each.model for each in candidates}
    return {
        row.model: _speed(row.latency, f"{reports / FILE}, {row.when[:10]}")
        for row in read_sweep(reports).rows
        if row.latency is not None
        and row.model in models
        and (row.data, row.runtime, row.precision) == (data, RUNTIME, "fp32")
        and (row.format, row.batch, row.threads, row.machine) == ("onnx", 1, 1, key)
    }


def _measured(candidates: Sequence[Candidate], classes: int) -> dict[str, Speed]:
    from bench.studies.variants import Variant, prepare
    from models.registry import build_model

    with progress_bars() as bar:
        exported = bar("Exporting networks", len(candidates))
        calls = {}
        for each in candidates:
            side = each.recipe.crop
            variant = Variant(
                group="tune",
                name=each.model,
                build=partial(build_model, each.model, num_classes=classes, size=side),
                shape=(3, side, side),
            )
            calls[each.model] = prepare(variant, [RUNTIME], batch=1, threads=1).calls[RUNTIME]
            exported()
        tick = bar("Measuring their latency", len(calls) * (_PLAN.rounds + 1))
        latencies = measure(calls, _PLAN, tick=tick)
    return {
        name: _speed(latency, "measured for this search") for name, latency in latencies.items()
    }


def _speed(latency: Latency, source: str) -> Speed:
    return Speed(p50_s=latency.p50, p99_s=latency.p99, calls=len(latency.samples), source=source)
