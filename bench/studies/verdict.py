"""Judges the claims of a paper by intervals; a tie is a tie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from bench.studies.record import PAPER, Ratio, Results
from bench.studies.variants import Variant

Outcome = Literal["holds", "does not hold", "a tie"]
Pairs = Callable[[Results], Iterable[tuple[Variant, Variant]]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a claim holds for one source, and the figures that say so."""

    word: str
    figures: str

    def __str__(self) -> str:
        return f"{self.word} ({self.figures})"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a paper says.

    Attributes:
        text: a sentence, without its full stop.
        judge: of a run and a source; None where the source has no figures for it.
    """

    text: str
    judge: Callable[[Results, str], Verdict | None]

    def sentence(self, results: Results, sources: Mapping[str, str]) -> str:
        """Returns the claim and its verdict for each of ``sources``: name to what it is called."""
        found = [
            f"{called}: {verdict}"
            for source, called in sources.items()
            if (verdict := self.judge(results, source)) is not None
        ]
        return f"{self.text}. {'; '.join(found)}."


def faster(pairs: Pairs, *, per_mac: bool = False) -> Callable[[Results, str], Verdict | None]:
    """Returns the judge of "of each pair the first takes less time than the second".

    Args:
        pairs: of variants of one group.
        per_mac: whether time per MAC is meant, for MACs that are only about equal.
    """

    def judge(results: Results, source: str) -> Verdict | None:
        outcomes: dict[str, Outcome] = {}
        slower: list[float] = []
        for quick, slow in pairs(results):
            ratio = results.ratio(quick, slow, source)
            if ratio is None:
                return None
            # A paper's own networks have the MACs it prints: equal ones.
            scaled = per_mac and source != PAPER
            limit = results.macs_ratio(quick, slow) if scaled else 1.0
            other = slow if quick is results.first(quick) else quick
            outcomes[f"{other.group} {other.name}"] = below(ratio, limit)
            slower.append(limit / ratio.value)
        verdict = summary(outcomes)
        ends = dict.fromkeys(f"{value:.2f}" for value in (min(slower), max(slower)))
        return Verdict(verdict.word, f"{verdict.figures}; {' to '.join(ends)} times")

    return judge


def summary(outcomes: Mapping[str, Outcome]) -> Verdict:
    """Returns the one verdict of several comparisons, by name; if some hold, it holds in part."""
    counts = Counter(outcomes.values())
    figures = f"{counts['holds']} of {len(outcomes)}"
    if counts["a tie"]:
        figures += f", {counts['a tie']} tied"
    if len(counts) == 1:
        return Verdict(next(iter(counts)), figures)
    if opposite := [name for name in outcomes if outcomes[name] == "does not hold"]:
        figures += f", the other way: {', '.join(opposite)}"
    return Verdict("holds in part" if counts["holds"] else "does not hold", figures)


def below(ratio: Ratio, limit: float) -> Outcome:
    """Returns whether ``ratio`` is below ``limit``: a tie where its interval holds it.

    Of a limit of 1 that is :func:`bench.measure.timing.overlap` of both latencies.
    """
    if ratio.low > limit:
        return "does not hold"
    return "holds" if ratio.high < limit else "a tie"


def times(ratio: Ratio) -> str:
    """Returns a ratio with its interval: ``1.08 times, 1.06 to 1.10``."""
    value = f"{ratio.value:.2f} times"
    return value if ratio.low == ratio.high else f"{value}, {ratio.low:.2f} to {ratio.high:.2f}"
