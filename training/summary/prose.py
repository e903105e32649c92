"""Figures in words, and Markdown that shows any text as it is. No torch here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

MISSING = "not measured"

# What GitHub's Markdown could read as more than text; an underscore within a word it does not.
_SPECIAL = re.compile(r"([\\`*\[\]<>|~$&#])|(?<![^\W_])(_)|(_)(?![^\W_])")


def one_line(text: str) -> str:
    """Returns ``text`` without line breaks and control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def escape(text: str) -> str:
    """Returns Markdown, for a sentence or a table cell, that shows ``text`` on one line."""
    return _SPECIAL.sub(r"\\\g<0>", one_line(text))


def fenced(text: str) -> list[str]:
    """Returns ``text`` as lines of a shell block; its fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}sh", *text.splitlines(), fence]


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], numeric: Collection[str] = ()
) -> list[str]:
    """Returns the lines of a Markdown table; columns named in ``numeric`` stand to the right.

    Cells are Markdown: what is not ours has gone through :func:`escape`.
    """
    rule = ["---:" if name in numeric else "---" for name in header]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]


def number(value: float | None, words: Callable[[float], str]) -> str:
    """Returns ``words(value)``, or that it was not measured or is not finite."""
    if value is None:
        return MISSING
    return words(value) if math.isfinite(value) else "not finite"


def percent(share: float) -> str:
    """Returns a share in [0, 1] as ``99.2 %``."""
    return f"{share * 100:.1f} %"


def points(difference: float) -> str:
    """Returns a difference above 0 of two shares as ``1.2 points`` of percent."""
    return f"{difference * 100:.1f} points" if difference >= 0.001 else "less than 0.1 points"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Returns ``1 image``, ``2 images``, ``3 classes``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """Returns ``8.4 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def millions(count: float) -> str:
    """Returns a count of MACs or parameters as ``20.1 M`` or ``4.09 G``."""
    if count < 1e6:
        return f"{count:,.0f}"
    return f"{count / 1e9:.2f} G" if count >= 1e9 else f"{count / 1e6:.1f} M"


def plain(value: Any) -> str:
    """Returns a field of a recipe as Markdown: text as it is, the rest as in recipe.json."""
    return escape(value if isinstance(value, str) else json.dumps(value, default=str))
