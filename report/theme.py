"""The theme of all charts, and rendering them to PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import altair as alt
import vl_convert

Records = list[dict[str, Any]]

INK, QUIET = "#22272e", "#5b626c"
_LINE, _GRID = "#c9ced6", "#e6e9ed"


def sheet(
    chart: Any,
    title: str,
    subtitle: Sequence[str] = (),
    *,
    data: Mapping[str, Records] | None = None,
    legend: Literal["bottom", "right"] = "bottom",
) -> dict[str, Any]:
    """Returns the Vega-Lite of ``chart`` alone on a white sheet, with a title.

    Args:
        chart: of Altair, without a configuration of its own.
        title: what it shows.
        subtitle: lines below the title.
        data: what the chart names: Altair copies a chart with all it holds at every step.
        legend: where it stands.
    """
    text = alt.TitleParams(
        title, subtitle=list(subtitle), anchor="start", frame="bounds", offset=18
    )
    spec: dict[str, Any] = (
        chart.properties(title=text, padding=24)
        .configure(background="white", font="sans-serif")
        .configure_title(
            fontSize=18, subtitleFontSize=13, subtitleColor=QUIET, subtitlePadding=6, color=INK
        )
        .configure_view(stroke=None)
        .configure_axis(
            titleFontWeight="normal",
            titleColor=QUIET,
            labelColor=INK,
            labelFontSize=12,
            labelLimit=260,
            titleFontSize=12,
            domainColor=_LINE,
            tickColor=_LINE,
            gridColor=_GRID,
        )
        .configure_legend(
            **({"orient": "bottom", "columns": 4} if legend == "bottom" else {}),
            labelFontSize=12,
            symbolSize=90,
            symbolOpacity=1,
            titleFontWeight="normal",
            titleColor=QUIET,
        )
        .to_dict()
    )
    spec["datasets"] = {**spec.get("datasets", {}), **(data or {})}
    return spec


def png(spec: Mapping[str, Any]) -> bytes:
    """Returns a PNG of a Vega-Lite specification, twice as fine as its pixels."""
    return bytes(vl_convert.vegalite_to_png(dict(spec), scale=2))
