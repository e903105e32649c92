"""What the pictures of a run share: ink, type and the way to a PNG. No torch here."""

from __future__ import annotations

from typing import Any

import altair as alt
import vl_convert

Records = list[dict[str, Any]]

INK, QUIET = "#22272e", "#5b626c"


def to_png(chart: Any, title: str, subtitle: list[str], data: dict[str, Records]) -> bytes:
    """Returns ``chart`` with its title and data as a PNG, twice as fine as its pixels."""
    text = alt.TitleParams(title, subtitle=subtitle, anchor="start", frame="bounds", offset=18)
    spec = (
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
            titleFontSize=12,
            domainColor="#c9ced6",
            tickColor="#c9ced6",
            gridColor="#e6e9ed",
        )
        .configure_legend(labelFontSize=12, titleFontWeight="normal", titleColor=QUIET)
        .to_dict()
    )
    # Charts name their data, as Altair copies a chart with all it holds at every step.
    spec["datasets"] = spec.get("datasets", {}) | data
    return bytes(vl_convert.vegalite_to_png(spec, scale=2))
