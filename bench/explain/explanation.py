"""Why networks take what they take: their layers, their limits, and a prediction. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bench.explain.layer_rows import keep_layers, known_layers
from bench.explain.layer_sweep import Profiles, profile_all
from bench.explain.layers import LayerTimes
from bench.explain.peak_rows import load_peaks
from bench.explain.prediction import MIN_FAMILIES, family, leave_family_out
from bench.explain.prediction_section import prediction_section
from bench.explain.roofline import Roof, roof
from bench.explain.roofline_section import roofline_section
from bench.grid import Grid, find_artifacts
from bench.section import Section
from export.artifact import Artifact
from models.errors import UserError

RUNTIME = "ort-cpu"  # whose kernels are profiled, and whose peaks are measured
PRECISIONS = ("fp32", "int8")  # ONNX Runtime computes an fp16 graph in fp32 on a CPU


def explain(rows: Sequence[LayerTimes], out: Path) -> list[Section]:
    """Returns what bounds the layers of ``rows``, and how well their latency is predicted.

    Nothing comes of no rows, and no section on prediction of fewer than three families of networks.

    Args:
        rows: measured layers, all with the same number of threads.
        out: folder that keeps ``peaks.json``; they are measured where it holds none.

    Raises:
        UserError: a file there that cannot be understood.
    """
    if not rows:
        return []
    peaks = load_peaks(out, RUNTIME, rows[0].threads)
    roofs = [roof(times, peaks) for times in rows]
    sections = [roofline_section(roofs, peaks)]
    if len({family(row.model) for row in rows} - {None}) >= MIN_FAMILIES:
        sections.append(predict(roofs))
    return sections


def load_graphs(grid: Grid) -> list[Artifact]:
    """Returns the artifacts of ``grid`` that ONNX Runtime runs on a CPU in their own precision.

    Those that cannot be read are left out: the sweep has their reasons.
    """
    names = [f"onnx-{precision}" for precision in PRECISIONS]
    found = []
    for folder in find_artifacts(grid):
        if folder.name in names:
            with suppress(UserError):
                found.append(Artifact.load(folder))
    return found


def profile(
    artifacts: Sequence[Artifact], batches: Sequence[int], threads: int, out: Path
) -> Profiles:
    """Returns the layers of the fp32 and int8 graphs among ``artifacts``, kept in ``out``."""
    graphs = [one for one in artifacts if one.format == "onnx" and one.precision in PRECISIONS]
    known = known_layers(out)
    found = profile_all(graphs, batches=batches, threads=threads, known=known)
    keep_layers(found.rows, out)
    return found


def bound(found: Profiles, threads: int, out: Path) -> tuple[list[Roof], Section]:
    """Returns what was profiled under the peaks of this machine, which are measured anew."""
    peaks = load_peaks(out, RUNTIME, threads, again=True)
    roofs = [roof(times, peaks) for times in found.rows]
    return roofs, roofline_section(roofs, peaks, found.missing)


def predict(roofs: Sequence[Roof]) -> Section:
    """Returns how well ``roofs`` are predicted.

    Raises:
        UserError: networks of fewer than three families.
    """
    families = {roof.times.model: family(roof.times.model) for roof in roofs}
    known = {model: name for model, name in families.items() if name}
    inside = [roof for roof in roofs if roof.times.model in known]
    outside = sorted({roof.times.network for roof in roofs if roof.times.model not in known})
    return prediction_section(leave_family_out(inside, known), outside)
