"""A sweep as a page that needs no network, a picture and a Markdown table. No torch here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import vl_convert

from bench.charts import dots, poster, scatter, specification
from bench.pick import Pick, pick_all
from bench.prose import facts, headline, method, subtitle, summary
from bench.rows import Sweep
from bench.table import COLUMNS, NUMERIC, measured_cells, pipe, unmeasured
from models.files import write_whole

HTML, PNG, MARKDOWN = "latency.html", "latency.png", "latency.md"
_LEGEND = (
    "Mark: p50, and how many times faster than torch eager. Band: its 95 % interval. Line: to p95."
)
_UNMEASURED = ("Network", "Artifact", "Runtime", "Batch", "Why not")
_TEMPLATE = Path(__file__).with_name("report.html.j2")


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The files that were written; ``png`` is None where nothing was measured."""

    html: Path
    png: Path | None
    markdown: Path


def write_report(sweep: Sweep, folder: Path) -> Report:
    """Returns the files in ``folder`` that now show ``sweep``; each appears by rename, whole."""
    picks = pick_all(sweep)
    png = folder / PNG if sweep.measured() else None
    report = Report(html=folder / HTML, png=png, markdown=folder / MARKDOWN)
    write_whole(report.markdown, _markdown(sweep, picks).encode())
    if png:
        write_whole(png, _png(sweep))
    else:
        (folder / PNG).unlink(missing_ok=True)  # an older picture would belie the other files
    write_whole(report.html, _html(sweep, picks).encode())
    return report


def _cells(sweep: Sweep, picks: dict[str, Pick]) -> list[list[dict[str, str]]]:
    """Returns the cells of all measured rows: a group per network and batch, the fastest first."""
    groups = [
        [measured_cells(sweep, row, picks) for row in sweep.measured(network, batch)]
        for network in sweep.networks()
        for batch in sweep.batches()
    ]
    return [group for group in groups if group]


def _markdown(sweep: Sweep, picks: dict[str, Pick]) -> str:
    lines = [
        f"# {headline(sweep)}",
        "",
        subtitle(sweep),
        "",
        "\n\n".join(summary(sweep, picks)),
        "",
    ]
    if groups := _cells(sweep, picks):
        lines += [f"![Latency of every candidate, and against MACs]({PNG})", ""]
        lines += pipe(COLUMNS, [list(cells.values()) for group in groups for cells in group])
    if missing := unmeasured(sweep):
        lines += ["", "## Not measured", "", *pipe(_UNMEASURED, missing)]
    lines += ["", "## Machine", "", *pipe(("Fact", "Value"), facts(sweep))]
    lines += ["", "## How it was measured", "", *(f"- {line}" for line in method(sweep)), ""]
    return "\n".join(lines)


def _png(sweep: Sweep) -> bytes:
    single = len(sweep.networks()) == 1
    below = [subtitle(sweep), _LEGEND] if single else [subtitle(sweep)]
    sheet = poster(sweep, headline(sweep), below)
    spec = specification(sheet, sweep, _batches(sweep))
    return bytes(vl_convert.vegalite_to_png(spec, scale=2))


def _html(sweep: Sweep, picks: dict[str, Pick]) -> str:
    single = len(sweep.networks()) == 1
    figures = _figures(sweep)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(
        _TEMPLATE.read_text(encoding="utf-8")
    ).render(
        title=headline(sweep),
        subtitle=subtitle(sweep),
        summary=summary(sweep, picks),
        figures=figures,
        columns=COLUMNS[single:],  # one network is named in the title
        numeric=NUMERIC,
        groups=_cells(sweep, picks),
        unmeasured_columns=_UNMEASURED[single:],
        unmeasured=[cells[single:] for cells in unmeasured(sweep)],
        facts=facts(sweep),
        method=method(sweep),
        bundle=vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;") if figures else "",
        # A name with "</script>" in it must not end the script it is data of.
        specs=json.dumps([figure["spec"] for figure in figures]).replace("<", "\\u003c"),
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
