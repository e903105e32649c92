"""Formats numbers in the same way for all reports and tables."""

from __future__ import annotations

import math
from collections.abc import Callable

MISSING = "not measured"


def ms(seconds: float) -> str:
    """Returns ``seconds`` in ms with about three digits."""
    value = seconds * 1e3
    decimals = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{decimals}f}"


def percent(fraction: float, *, decimals: int = 1) -> str:
    """Returns ``fraction`` as ``98.3 %``."""
    return f"{100 * fraction:.{decimals}f} %"


def points(difference: float) -> str:
    """Returns a positive difference of two fractions in percentage points: ``1.2 points``."""
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


def gibibytes(count: float) -> str:
    """Returns a count of bytes as ``1.5 GiB``."""
    return f"{count / 2**30:.1f} GiB"


def millions(count: float) -> str:
    """Returns a count of MACs or parameters as ``20.1 M`` or ``4.09 G``."""
    if count < 1e6:
        return f"{count:,.0f}"
    return f"{count / 1e9:.2f} G" if count >= 1e9 else f"{count / 1e6:.1f} M"


def number(value: float | None, words: Callable[[float], str]) -> str:
    """Returns ``words(value)``; ``not measured`` for None, ``not finite`` for inf and NaN."""
    if value is None:
        return MISSING
    return words(value) if math.isfinite(value) else "not finite"


def one_line(text: str) -> str:
    """Returns ``text`` without line breaks and control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
