"""A sweep as a page that needs no network, a picture and a Markdown table. No torch here."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import vl_convert

from bench.latency.charts import datasets, dots, poster, scatter, specification
from bench.latency.pick import Pick, pick_all
from bench.latency.prose import facts, headline, method, picks_table, subtitle, summary
from bench.latency.rows import Sweep
from bench.latency.table import COLUMNS, NUMERIC, measured_cells, unmeasured
from core.files import write_whole
from report.markdown import markdown, pipe
from report.section import Figure, Section
from report.theme import png, sheet

_STEM = "latency"
HTML, PNG, MARKDOWN = f"{_STEM}.html", f"{_STEM}.png", f"{_STEM}.md"
_LEGEND = (
    "Mark: p50, and how many times faster than torch eager. Band: its 95 % interval. Line: to p95."
)
_UNMEASURED = ("Network", "Artifact", "Runtime", "Batch", "Why not")
_TEMPLATE = Path(__file__).parents[2] / "report" / "page.html.j2"


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The files that were written; ``png`` is None where nothing was measured."""

    html: Path
    png: Path | None
    markdown: Path


def write_report(sweep: Sweep, folder: Path, sections: Sequence[Section] = ()) -> Report:
    """Returns the files in ``folder`` that now show ``sweep``; each appears by rename, whole.

    Args:
        sweep: what was measured.
        folder: gets the page, the Markdown, the picture of the sweep and one of each section's
            charts.
        sections: what explains it.
    """
    picks = pick_all(sweep)
    png = folder / PNG if sweep.measured() else None
    report = Report(html=folder / HTML, png=png, markdown=folder / MARKDOWN)
    # Older pictures would belie the other files.
    for old in (*folder.glob(f"{_STEM}-*.png"), *(() if png else (folder / PNG,))):
        old.unlink(missing_ok=True)
    for section in sections:
        for figure in section.figures:
            write_whole(folder / _picture(figure), _figure_png(sweep, figure))
    write_whole(report.markdown, _markdown(sweep, picks, sections).encode())
    if png:
        write_whole(png, _png(sweep))
    write_whole(report.html, _html(sweep, picks, sections).encode())
    return report


def _cells(sweep: Sweep, picks: dict[str, Pick]) -> list[list[dict[str, str]]]:
    """Returns the cells of all measured rows: a group per network and batch, the fastest first."""
    groups = [
        [measured_cells(sweep, row, picks) for row in sweep.measured(network, batch)]
        for network in sweep.networks()
        for batch in sweep.batches()
    ]
    return [group for group in groups if group]


def _markdown(sweep: Sweep, picks: dict[str, Pick], sections: Sequence[Section]) -> str:
    lines = [
        f"# {headline(sweep)}",
        "",
        subtitle(sweep),
        "",
        "\n\n".join(summary(sweep, picks)),
        "",
    ]
    if served := picks_table(sweep, picks):
        lines += [*pipe(served.header, served.rows, served.numeric), ""]
    groups = _cells(sweep, picks)
    if groups:
        lines += [f"![Latency of every candidate, and against MACs]({PNG})", ""]
    for section in sections:
        lines += markdown(section)
        lines += [f"![{figure.title}]({_picture(figure)})\n" for figure in section.figures]
    if groups:
        lines += ["## What was measured", ""]
        lines += pipe(
            COLUMNS, [list(cells.values()) for group in groups for cells in group], NUMERIC
        )
    if missing := unmeasured(sweep):
        lines += ["", "## Not measured", "", *pipe(_UNMEASURED, missing, NUMERIC)]
    lines += ["", "## Machine", "", *pipe(("Fact", "Value"), facts(sweep))]
    lines += [
        "",
        "## How it was measured",
        "",
        *(f"- {line}" for line in _method(sweep, sections)),
        "",
    ]
    return "\n".join(lines)


def _png(sweep: Sweep) -> bytes:
    single = len(sweep.networks()) == 1
    below = [subtitle(sweep), _LEGEND] if single else [subtitle(sweep)]
    data = datasets(sweep, _batches(sweep))
    return png(sheet(poster(sweep), headline(sweep), below, data=data))


def _method(sweep: Sweep, sections: Sequence[Section]) -> list[str]:
    return [*method(sweep), *(note for section in sections for note in section.notes)]


def _picture(figure: Figure) -> str:
    """Returns the name of the file of a section's chart."""
    return f"{_STEM}-{re.sub(r'[^a-z0-9]+', '-', figure.title.lower()).strip('-')}.png"


def _figure_png(sweep: Sweep, figure: Figure) -> bytes:
    return png(sheet(figure.chart.properties(width=560), figure.title, [subtitle(sweep)]))


def _html(sweep: Sweep, picks: dict[str, Pick], sections: Sequence[Section]) -> str:
    single = len(sweep.networks()) == 1
    figures = _figures(sweep)
    parts: list[dict[str, Any]] = [
        {
            "title": section.title,
            "sentences": section.sentences,
            "tables": section.tables,
            "figures": [
                {
                    "title": figure.title,
                    "caption": figure.caption,
                    "spec": figure.chart.properties(width="container").to_dict(),
                }
                for figure in section.figures
            ],
        }
        for section in sections
    ]
    # In the order of the page.
    specs = [
        figure["spec"] for part in [{"figures": figures}, *parts] for figure in part["figures"]
    ]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(
        _TEMPLATE.read_text(encoding="utf-8")
    ).render(
        title=headline(sweep),
        subtitle=subtitle(sweep),
        summary=summary(sweep, picks),
        served=picks_table(sweep, picks),
        figures=figures,
        sections=parts,
        columns=COLUMNS[single:],  # one network is named in the title
        numeric=NUMERIC,
        groups=_cells(sweep, picks),
        unmeasured_columns=_UNMEASURED[single:],
        unmeasured=[cells[single:] for cells in unmeasured(sweep)],
        facts=facts(sweep),
        method=_method(sweep, sections),
        bundle=vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;") if specs else "",
        # A name with "</script>" in it must not end the script it is data of.
        specs=json.dumps(specs).replace("<", "\\u003c"),
    )


def _batches(sweep: Sweep) -> list[int]:
    return [batch for batch in sweep.batches() if sweep.measured(batch=batch)]


def _figures(sweep: Sweep) -> list[dict[str, Any]]:
    """Returns the charts of the page: heading, caption and a specification as wide as the page."""
    batches = _batches(sweep)
    single = len(sweep.networks()) == 1
    figures = []
    if single:
        for batch in batches:
            figures.append(
                {
                    "title": "One image per call" if batch == 1 else f"{batch} images per call",
                    "caption": _LEGEND,
                    "spec": specification(
                        dots(sweep, batch).properties(width="container"), sweep, [batch]
                    ),
                }
            )
    for batch in batches:
        figures.append(
            {
                "title": f"Latency against MACs, batch {batch}",
                "caption": "Both axes are logarithmic. Along a dashed line the rate is constant: "
                "half the MACs, half the time. "
                + ("Here all do the same MACs." if single else "Few networks stay on one."),
                "spec": specification(
                    scatter(sweep, batch).properties(width="container"), sweep, [batch]
                ),
            }
        )
    return figures
