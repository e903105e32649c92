"""The theme of all charts, and their rendering to PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

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
    width: int | None = None,
    legend: Literal["bottom", "right"] = "bottom",
) -> dict[str, Any]:
    """Returns the Vega-Lite specification of ``chart`` on a white sheet, with a title.

    Args:
        chart: an Altair chart without configuration.
        title: title of the sheet.
        subtitle: lines below the title.
        data: the named data sets of the chart, which are not inline as Altair copies inline data
            at every step.
        width: width of the chart in pixels; None to keep it.
        legend: position of the legend.
    """
    # The dictionary is changed, as each change of an Altair chart copies all its layers.
    spec: dict[str, Any] = chart.to_dict()
    config = spec["config"]
    if width is not None:
        spec["width"] = width
    spec["padding"] = 24
    spec["title"] = {
        "text": title,
        "subtitle": list(subtitle),
        "anchor": "start",
        "frame": "bounds",
        "offset": 18,
    }
    config |= {"background": "white", "font": "sans-serif"}
    config["view"] |= {"stroke": None}
    config["title"] = {
        "fontSize": 18,
        "subtitleFontSize": 13,
        "subtitleColor": QUIET,
        "subtitlePadding": 6,
        "color": INK,
    }
    config["axis"] = {
        "titleFontWeight": "normal",
        "titleColor": QUIET,
        "labelColor": INK,
        "labelFontSize": 12,
        "labelLimit": 260,
        "titleFontSize": 12,
        "domainColor": _LINE,
        "tickColor": _LINE,
        "gridColor": _GRID,
    }
    config["legend"] = {
        **({"orient": "bottom", "columns": 4} if legend == "bottom" else {}),
        "labelFontSize": 12,
        "symbolSize": 90,
        "symbolOpacity": 1,
        "titleFontWeight": "normal",
        "titleColor": QUIET,
    }
    spec["datasets"] = {**spec.get("datasets", {}), **(data or {})}
    return spec


def png(spec: Mapping[str, Any]) -> bytes:
    """Renders a Vega-Lite specification and returns the bytes of a PNG, at scale 2."""
    return bytes(vl_convert.vegalite_to_png(dict(spec), scale=2))
