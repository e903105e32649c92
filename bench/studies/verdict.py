"""Judges the claims of a paper by confidence intervals; overlapping ones are a tie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from bench.measure.ratio import Ratio
from bench.studies.record import PAPER, Results
from bench.studies.variants import Variant

Outcome = Literal["holds", "does not hold", "a tie"]
Pairs = Callable[[Results], Iterable[tuple[Variant, Variant]]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a claim holds for a source, as a word, and the figures behind it."""

    word: str
    figures: str

    def __str__(self) -> str:
        return f"{self.word} ({self.figures})"


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of a paper.

    Attributes:
        text: a sentence, without its full stop.
        judge: takes results and a source and returns the verdict; None if the source lacks figures.
    """

    text: str
    judge: Callable[[Results, str], Verdict | None]

    def sentence(self, results: Results, sources: Mapping[str, str]) -> str:
        """Returns the claim and its verdict for each of ``sources`` (name to name in the text)."""
        found = [
            f"{called}: {verdict}"
            for source, called in sources.items()
            if (verdict := self.judge(results, source)) is not None
        ]
        return f"{self.text}. {'; '.join(found)}."


def faster(pairs: Pairs, *, per_mac: bool = False) -> Callable[[Results, str], Verdict | None]:
    """Returns a judge of the claim that the first variant of each pair is faster than the second.

    Args:
        pairs: returns the pairs; the variants of a pair are of one group.
        per_mac: whether to compare time per MAC, for MACs that are only approximately equal.
    """

    def judge(results: Results, source: str) -> Verdict | None:
        outcomes: dict[str, Outcome] = {}
        slower: list[float] = []
        for quick, slow in pairs(results):
            ratio = results.ratio(quick, slow, source)
            if ratio is None:
                return None
            # The paper's own networks have equal MACs.
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
    """Combines the outcomes of several comparisons, by name, into one verdict.

    If some hold and others do not, the claim holds in part.
    """
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
    """Returns whether ``ratio`` is below ``limit``; a tie if its interval contains the limit.

    For a limit of 1, that is the tie of :func:`bench.measure.timing.overlap`.
    """
    if ratio.low > limit:
        return "does not hold"
    return "holds" if ratio.high < limit else "a tie"


def times(ratio: Ratio) -> str:
    """Returns a ratio with its interval as text: ``1.08 times, 1.06 to 1.10``."""
    value = f"{ratio.value:.2f} times"
    return value if ratio.low == ratio.high else f"{value}, {ratio.low:.2f} to {ratio.high:.2f}"
