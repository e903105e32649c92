"""The step that writes the report on all other steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from PIL import Image

from bench.experiment import this_machine
from bench.gpu import limits, parity, training
from bench.gpu.check import AGAIN, HTML
from bench.gpu.latency import PLAN
from bench.gpu.process import Budget
from bench.latency.correlation import correlation_section, inversion_section
from bench.latency.pareto import pareto_section
from bench.latency.record import Sweep, read_sweep
from bench.latency.sections import write_latency
from bench.latency.timing_scopes import gpu_section
from bench.layers.peaks import known_peaks
from core.conditions import conditions
from core.errors import UserError, in_words
from core.record_file import read_rows
from report.section import Section

LARGEST = 3e6  # limit of the whole folder in bytes: it is meant to be committed


def run(folder: Path, budget: Budget) -> str:
    """Writes the report into ``folder``; returns its file name and the size of all files.

    A section that cannot be written is replaced by a sentence that says why.
    """
    sweep = _sweep(folder)
    report = write_latency(sweep, folder, sections(folder, sweep))
    page = report.html.replace(folder / HTML)
    for picture in folder.glob("*.png"):
        shrink(picture)
    size = sum(file.stat().st_size for file in folder.iterdir())
    text = f"{page.name}, {size / 1e6:.1f} MB in all"
    return text if size <= LARGEST else f"{text}: more than the {LARGEST / 1e6:.0f} MB it should be"


def _sweep(folder: Path) -> Sweep:
    """Returns the measured sweep, or an empty one, since the other sections do not need it."""
    try:
        return read_sweep(folder)
    except UserError as error:
        print(error)
    state = conditions()
    return Sweep(machine=this_machine(), plan=PLAN, rows=(), before=state, after=state)


def sections(folder: Path, sweep: Sweep) -> list[Section]:
    """Returns the sections on ``sweep``, and on the other steps' results in ``folder``."""
    makers: dict[str, Callable[[], Section | None]] = {
        "Training on the GPU": lambda: training.training_section(
            read_rows(folder / training.FILE, training.Trained, remedy=AGAIN)
        ),
        "On the GPU": lambda: gpu_section(sweep),
        "What tells latency": lambda: correlation_section(sweep),
        "Fewer MACs, more time": lambda: inversion_section(sweep, {}),
        "Accuracy against latency": lambda: pareto_section(sweep),
        "How far from what the GPU can do": lambda: limits.limits_section(
            read_rows(folder / limits.FILE, limits.LimitRow, remedy=AGAIN),
            max(known_peaks(folder), key=lambda one: one.when, default=None),
        ),
        "fp16 against fp32": lambda: parity.parity_section(
            read_rows(folder / parity.FILE, parity.ParityRow, remedy=AGAIN)
        ),
    }
    found = []
    for title, make in makers.items():
        try:
            section = make()
        except Exception as error:  # the other sections are useful without it
            section = Section(title=title, sentences=(f"Not written: {in_words(error)}.",))
        if section is not None:
            # Only the figures of the smallest and largest batch size, as pictures are large.
            first, rest = section.figures[:1], section.figures[1:]
            found.append(replace(section, figures=(*first, *rest[-1:])))
    return found


def shrink(picture: Path) -> None:
    """Reduces the PNG of a chart to 256 colours, about a third of its size."""
    with Image.open(picture) as image:
        small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(picture, optimize=True)
