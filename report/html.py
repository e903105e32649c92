"""Renders a report as a self-contained HTML page, with styles, charts and scripts inline."""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import vl_convert

from report.format import MISSING
from report.section import Figure, Report

_TEMPLATE = Path(__file__).with_name("page.html.j2")


def page(report: Report) -> str:
    """Returns ``report`` as the text of an HTML file."""
    every = [*report.figures, *(each for part in report.sections for each in part.figures)]
    specs = [_specification(figure) for figure in every]  # in the order of the page
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        report=report,
        missing=MISSING,
        bundle=_bundle() if specs else "",
        # Text with "</script>" must not end the script element.
        specs=json.dumps(specs).replace("<", "\\u003c"),
    )


@cache
def _bundle() -> str:
    """Returns the JavaScript that draws the charts; cached, as building it takes over a second."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def _specification(figure: Figure) -> dict[str, Any]:
    """Returns the Vega-Lite specification of a chart that fills the width of the page."""
    spec: dict[str, Any] = figure.chart.to_dict()
    spec["width"] = "container"
    spec["datasets"] = {**spec.get("datasets", {}), **figure.data}
    return spec
