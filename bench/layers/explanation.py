"""Explains the latency of networks by layer times, roofline limits and a prediction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from artifact.artifact import Artifact
from bench.latency.plan import Grid, find_artifacts
from bench.latency.record import Row, Sweep
from bench.layers.measure import Missing, profile_all
from bench.layers.peaks import keep_peaks, known_peaks, measure_peaks
from bench.layers.prediction import MIN_FAMILIES, family, leave_family_out
from bench.layers.prediction_section import prediction_section
from bench.layers.record import LayerTimes, keep_layers, known_layers
from bench.layers.roofline import Roof, doubt, roof
from bench.layers.sections import roofline_section
from core.cli import notes
from core.errors import UserError
from report.section import Section

RUNTIME = "ort-cpu"  # runtime that is profiled and whose peaks are measured
PRECISIONS = ("fp32", "int8")  # ONNX Runtime computes an fp16 graph in fp32 on a CPU


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounded:
    """Networks with their rooflines, and those without layer times."""

    roofs: tuple[Roof, ...]
    missing: tuple[Missing, ...]

    def sections(self) -> list[Section]:
        """Returns the sections on rooflines and on prediction.

        Without networks there is none; with fewer than three families none on prediction.
        """
        if not self.roofs and not self.missing:
            return []
        sections = [roofline_section(self.roofs, self.missing)]
        families = {family(roof.times.model) for roof in self.roofs}
        if len(families - {None}) >= MIN_FAMILIES:
            sections.append(predict(self.roofs))
        return sections


def explain(out: Path, sweep: Sweep) -> Bounded:
    """Returns the layers stored in ``out`` for the networks of ``sweep``, at the fewest threads.

    Layers whose latency does not agree with the row of ``sweep`` are left out; the others get the
    latency of that row.

    Raises:
        UserError: a file cannot be understood.
    """
    asked = set(sweep.networks())
    layers = [times for times in known_layers(out) if times.network in asked]
    threads = min((times.threads for times in layers), default=1)
    return _Judge(out, sweep).bound(times for times in layers if times.threads == threads)


def load_graphs(grid: Grid) -> list[Artifact]:
    """Loads the fp32 and int8 ONNX artifacts of ``grid``.

    Artifacts that cannot be loaded are left out, with a message on stderr.
    """
    names = [f"onnx-{precision}" for precision in PRECISIONS]
    found = []
    for folder in find_artifacts(grid):
        if folder.name in names:
            try:
                found.append(Artifact.load(folder))
            except UserError as error:
                notes().print(f"left out: {error}", soft_wrap=True, markup=False)
    return found


def profile(
    artifacts: Sequence[Artifact],
    batches: Sequence[int],
    threads: int,
    out: Path,
    *,
    sweep: Sweep | None = None,
    fresh: bool = False,
) -> Bounded:
    """Profiles the fp32 and int8 graphs among ``artifacts`` and returns them with rooflines.

    Profiled calls are interleaved with unprofiled ones, and the peaks are measured right after;
    both are stored in ``out``. Stored layers are reused if they agree with the latency.

    Args:
        artifacts: loaded artifacts; others than fp32 and int8 graphs are ignored.
        batches: batch sizes.
        threads: CPU threads inside a call.
        out: folder of ``layers.jsonl`` and ``peaks.json``.
        sweep: rows of the same artifacts that the layers must agree with.
        fresh: profile all of them again.
    """
    graphs = [one for one in artifacts if one.spec.is_graph and one.precision in PRECISIONS]
    judge = _Judge(out, sweep)
    known = [] if fresh else [t for t in known_layers(out) if isinstance(judge(t), Roof)]
    found = profile_all(graphs, batches=batches, threads=threads, known=known)
    if found.when is not None:
        keep_layers(found.rows, out)
        beside = {times.when for times in known_layers(out)}
        keep_peaks(replace(measure_peaks(RUNTIME, threads), when=found.when), out, beside)
        judge = _Judge(out, sweep)
    bounded = judge.bound(found.rows)
    return replace(bounded, missing=(*bounded.missing, *found.missing))


class _Judge:
    """Joins layers with the peaks of the same run, and rejects those that disagree with a call."""

    def __init__(self, out: Path, sweep: Sweep | None) -> None:
        rows = sweep.measured() if sweep else []
        self._rows: dict[tuple[str, str, int, int], Row] = {
            (row.network, row.precision, row.batch, row.threads): row
            for row in rows
            if row.runtime == RUNTIME
        }
        self._peaks = {
            (one.machine, one.threads, one.when): one
            for one in known_peaks(out)
            if one.runtime == RUNTIME
        }

    def __call__(self, times: LayerTimes) -> Roof | str:
        """Returns the roofline of ``times`` with the report's latency, or why it is rejected."""
        row = self._rows.get(times.key)
        peaks = self._peaks.get((times.machine, times.threads, times.when))
        if peaks is None:
            return "no peaks of this machine were measured beside its layers"
        if (reason := doubt(times, row)) is not None:
            return reason
        call = row.latency if row and row.latency else times.call
        return roof(replace(times, call=call), peaks)

    def bound(self, rows: Iterable[LayerTimes]) -> Bounded:
        """Returns the rooflines of ``rows``, and the rejected ones with the reason."""
        roofs, missing = [], []
        for times in rows:
            found = self(times)
            if isinstance(found, Roof):
                roofs.append(found)
                continue
            missing.append(
                Missing(
                    network=times.network,
                    artifact=f"onnx-{times.precision}",
                    batch=times.batch,
                    reason=f"{found}; make bench profiles it again",
                )
            )
        return Bounded(roofs=tuple(roofs), missing=tuple(missing))


def predict(roofs: Sequence[Roof]) -> Section:
    """Returns the section on predicting each of ``roofs`` from those of other families.

    Raises:
        UserError: fewer than three families.
    """
    families = {roof.times.model: family(roof.times.model) for roof in roofs}
    known = {model: name for model, name in families.items() if name}
    inside = [roof for roof in roofs if roof.times.model in known]
    outside = sorted({roof.times.network for roof in roofs if roof.times.model not in known})
    return prediction_section(leave_family_out(inside, known), outside)
