"""The report of a search: the Pareto front of top-1 against latency, and all trials."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from bench.tune.latency import RUNTIME, Speed
from bench.tune.plan import Candidate
from bench.tune.search import Tried
from core.cli import by_name
from core.machine import Machine
from report.format import ms, percent, plural
from report.section import Figure, Report, Section, Table
from report.theme import sheet

_FRONT = ("Network", "p50 ms", "p99 ms", "Top-1", "Trials", "Recipe changed")
_TRIALS = ("Trial", "Network", "Top-1", "Epochs", "Recipe changed", "Note")


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        data: what its data are loaded by.
        candidates: the networks within the limit, by name.
        speeds: the latency of all networks, by name.
        tried: the trials that ended.
        p99: limit of latency in seconds, or None.
        images: number of held-out images.
        flags: flags of the data that a training needs, too.
    """

    data: str
    candidates: Mapping[str, Candidate]
    speeds: Mapping[str, Speed]
    tried: Sequence[Tried]
    p99: float | None
    images: int
    flags: tuple[str, ...] = ()

    @property
    def best(self) -> dict[str, Tried]:
        """Returns the best trial of each network that has a complete one."""
        best: dict[str, Tried] = {}
        for each in self.tried:
            known = best.get(each.model)
            if each.top1 is not None and (known is None or each.top1 > (known.top1 or 0)):
                best[each.model] = each
        return best

    @property
    def front(self) -> list[Tried]:
        """Returns the best trials that no other beats in top-1 and p50, the fastest first."""
        ordered = sorted(
            self.best.values(), key=lambda each: (self.speeds[each.model].p50_s, -(each.top1 or 0))
        )
        front: list[Tried] = []
        for each in ordered:
            if not front or (each.top1 or 0) > (front[-1].top1 or 0):
                front.append(each)
        return front

    @property
    def winner(self) -> Tried | None:
        """Returns the trial of the highest top-1, the fastest of equals; None without any."""
        return self.front[-1] if self.front else None

    def command(self, trial: Tried) -> str:
        """Returns the command that trains the network of ``trial`` by its recipe."""
        candidate = self.candidates[trial.model]
        recipe = candidate.recipe
        fields = {
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
            "crop": recipe.crop,
            "resize": recipe.resize,
            "seed": recipe.seed,
            **trial.fields,
        }
        words = ["--model", trial.model, "--data", self.data, *self.flags]
        words += ["--recipe-name", candidate.recipe_name]
        for name, value in fields.items():
            words += [f"--recipe.{name.replace('_', '-')}", str(value)]
        return f"{by_name('train', 'python -m training')} {shlex.join(words)}"


def tune_report(found: Found, name: str, machine: Machine, when: str) -> Report:
    """Returns the report of a search, also of one that is not complete."""
    front = _front_table(found)
    ended = sum(each.top1 is not None for each in found.tried)
    return Report(
        name=name,
        title=f"Search on {found.data}",
        subtitle=f"{machine.cpu}, {when[:10]}",
        summary=tuple(_summary(found, ended)),
        lead=front if front.rows else None,
        figures=(_figure(found),) if ended else (),
        poster=_poster(found, machine) if ended else None,
        poster_alt="Top-1 of the trials against the latency of their networks",
        sections=(
            Section(
                title="All trials",
                tables=(_trials_table(found),),
                notes=(
                    f"Latency is of one image per call in one thread, float32, in {RUNTIME}: "
                    f"{_sources(found)}. Top-1 is of {plural(found.images, 'held-out image')}, by "
                    "which the trials were chosen, so the best of many looks better than it is: "
                    "judge the winner by test images.",
                    "A trial is pruned after an epoch in which its top-1 is below the median of "
                    "the trials before it (Optuna's MedianPruner); parameters are suggested by its "
                    "TPESampler.",
                ),
            ),
        ),
        facts=(("CPU", machine.cpu), ("Cores", str(machine.cores)), ("When", when)),
    )


def _summary(found: Found, ended: int) -> list[str]:
    pruned = len(found.tried) - ended
    limit = "" if found.p99 is None else f" with a p99 within {ms(found.p99)} ms"
    said = [
        f"{plural(len(found.tried), 'trial')} of {plural(len(found.candidates), 'network')}"
        f"{limit}, {pruned} of them pruned."
    ]
    if (winner := found.winner) is not None and winner.top1 is not None:
        speed = found.speeds[winner.model]
        said.append(
            f"The highest top-1 has {winner.model}: {percent(winner.top1)} in "
            f"{ms(speed.p50_s)} ms. Train it by: {found.command(winner)}"
        )
    else:
        said.append("None of them is complete: try more, or for fewer epochs.")
    return said


def _front_table(found: Found) -> Table:
    front = found.front
    beaten = [each for each in found.best.values() if each not in front]
    rows = []
    for each in (*front, *sorted(beaten, key=lambda one: found.speeds[one.model].p50_s)):
        speed = found.speeds[each.model]
        count = sum(other.model == each.model for other in found.tried)
        rows.append(
            (
                each.model,
                ms(speed.p50_s),
                ms(speed.p99_s),
                percent(each.top1 or 0),
                str(count),
                _words(each.fields),
            )
        )
    return Table(
        header=_FRONT,
        rows=tuple(rows),
        numeric=frozenset(_FRONT[1:5]),
        groups=tuple(count for count in (len(front), len(beaten)) if count),
        strong=frozenset(range(len(front))),
    )


def _trials_table(found: Found) -> Table:
    rows = tuple(
        (
            str(each.number + 1),
            each.model,
            "-" if each.top1 is None else percent(each.top1),
            str(each.epochs),
            _words(each.fields),
            each.failed or ("pruned" if each.top1 is None else ""),
        )
        for each in found.tried
    )
    return Table(header=_TRIALS, rows=rows, numeric=frozenset(("Trial", "Top-1", "Epochs")))


def _words(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in fields.items())


def _sources(found: Found) -> str:
    return "; ".join(
        f"{name} {found.speeds[name].source} ({plural(found.speeds[name].calls, 'call')})"
        for name in found.candidates
    )


def _figure(found: Found) -> Figure:
    front = {each.number for each in found.front}
    points = [
        {
            "network": each.model,
            "p50": found.speeds[each.model].p50_s * 1e3,
            "top1": 100 * each.top1,
            "trial": each.number + 1,
            "front": "yes" if each.number in front else "no",
        }
        for each in found.tried
        if each.top1 is not None
    ]
    base = alt.Chart(alt.NamedData("trials")).encode(
        x=alt.X(
            "p50:Q",
            title="p50 in ms, one image, one thread",
            scale=alt.Scale(zero=False),
            axis=alt.Axis(format=".3~g"),
        ),
        y=alt.Y("top1:Q", title="held-out top-1 in %", scale=alt.Scale(zero=False)),
    )
    marks = base.mark_point(filled=True, size=70).encode(
        color=alt.Color("network:N", title="Network"),
        opacity=alt.Opacity(
            "front:N", scale=alt.Scale(domain=["yes", "no"], range=[1, 0.35]), legend=None
        ),
        tooltip=["network:N", "trial:O", "top1:Q", "p50:Q"],
    )
    line = (
        base.mark_line(interpolate="step-after", color="#5b626c", strokeDash=[4, 3])
        .encode(order="p50:Q")
        .transform_filter("datum.front === 'yes'")
    )
    return Figure(
        title="Top-1 against latency",
        caption="Each point is a complete trial; those of the Pareto front are opaque and joined.",
        chart=alt.layer(line, marks).properties(height=320),
        data={"trials": points},
    )


def _poster(found: Found, machine: Machine) -> dict[str, Any]:
    figure = _figure(found)
    subtitle = [f"{found.data}, {machine.cpu}"]
    return sheet(figure.chart, figure.title, subtitle, data=figure.data, width=560)
