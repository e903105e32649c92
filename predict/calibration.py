"""The section of an evaluation report on calibration: scores compared with accuracy."""

from __future__ import annotations

from predict.evaluation import Evaluation
from report.format import percent, points
from report.section import Section, Table


def calibration(evaluation: Evaluation) -> Section:
    """Returns the section that compares scores with top-1, with a table of the bins."""
    gap = evaluation.confidence - evaluation.top1
    direction = "more" if gap > 0 else "less"
    header = ("Score", "Images", "Mean score", "Top-1")
    return Section(
        title="Calibration",
        sentences=(
            f"The mean score of the answers is {percent(evaluation.confidence)}, "
            f"{points(abs(gap))} {direction} than top-1; the expected calibration error is "
            f"{percent(evaluation.calibration_error)}.",
        ),
        tables=(
            Table(
                header=header,
                rows=tuple(
                    (
                        f"{each.low * 100:.1f} to {percent(each.high)}",
                        f"{each.images:,}",
                        percent(each.confidence),
                        percent(each.top1),
                    )
                    for each in evaluation.bins
                    if each.confidence is not None and each.top1 is not None
                ),
                numeric=frozenset(header),
            ),
        ),
        folded="Bins with images",
    )
