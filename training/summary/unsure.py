"""What a README says of images without an answer, as the most likely class is unsure."""

from __future__ import annotations

from report.format import percent, plural
from report.markdown import escape
from training.records import Abstaining
from training.summary.confusion import wilson


def unsure_lines(abstaining: Abstaining | None, *, has_test: bool) -> list[str]:
    """Returns the section; nothing where none was asked for."""
    if abstaining is None:
        return []
    found = abstaining.found
    title = "## No answer where it is unsure"
    if isinstance(found, str):
        return [title, "", f"There is no score below which to abstain: {escape(found)}.", ""]
    lines = [
        f"An image whose best score is below {found.threshold:.3f} can be left without an answer "
        f"(--abstain, in serving and predict; off by default). This threshold was chosen on "
        f"{plural(found.images, 'held-out image')} for a precision of {percent(found.wanted)}: of "
        f"these images {percent(found.coverage)} are answered, and {percent(found.precision)} of "
        "the answers are right.",
    ]
    if given := abstaining.tested:
        said = "none of them is answered"
        if given.images:
            low, high = wilson(given.right, given.images)
            said = (
                f"{percent(given.images / abstaining.test_images)} are answered, and "
                f"{percent(given.top1)} of the answers are right (95 % interval "
                f"{100 * low:.1f} to {percent(high)})"
            )
        lines.append(
            f"On {plural(abstaining.test_images, 'test image')}, by which nothing was chosen, "
            f"{said}."
        )
    elif not has_test:
        lines.append("There are no test images, so these figures are too good by a little.")
    return [title, "", " ".join(lines), ""]
