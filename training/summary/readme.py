"""The README of a run: what a colleague wants to know, in sentences computed from its figures."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from report.format import MISSING, duration, millions, number, percent, plural
from report.markdown import escape, fenced, plain, table
from training.summary.confusion import ClassResult, Matrix, class_results, wilson
from training.summary.findings import best_epoch, findings
from training.summary.per_class import class_lines, confusion_caption, pair_lines

if TYPE_CHECKING:
    from training.history import Epoch
    from training.summary.facts import RunFacts

README, CURVES, CONFUSION = "README.md", "curves.png", "confusion.png"

_FIRST_FIELDS = (
    "epochs",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "label_smoothing",
    "mixup",
    "ema",
    "crop",
)
_EPOCH_COLUMNS = (
    "epoch",
    "loss",
    "held-out loss",
    "training top-1",
    "held-out top-1",
    "learning rate",
    "images/s",
    "time",
)


def readme(facts: RunFacts, epochs: Sequence[Epoch], confusion: Matrix) -> str:
    """Returns the README of a run as GitHub's Markdown; see ``write_summary`` for the arguments."""
    results = class_results(confusion, facts.labels)
    first = [(name, facts.recipe[name]) for name in _FIRST_FIELDS if name in facts.recipe]
    known_first = [f"- {line}" for line in findings(facts, epochs, confusion, results)]
    lines = [
        f"# {escape(facts.model)} on {escape(facts.data)}: {_final(facts, results)}",
        "",
        *_opening(facts, results),
        "",
        *(["## Know this first", "", *known_first, ""] if known_first else []),
        f"![Loss, top-1 and learning rate over the epochs]({CURVES})",
        "",
        *table(_EPOCH_COLUMNS, _epoch_rows(facts.kept_epoch, epochs), numeric=_EPOCH_COLUMNS[1:]),
        "",
        "Training figures are of the images as they were augmented, while the weights still "
        "changed; held-out figures are of the plain images after the epoch. So training can look "
        "the worse of the two.",
        "",
        "## How it was trained",
        "",
        "This line repeats it:",
        "",
        *fenced(facts.command),
        "",
        *_values([("first weights", facts.origin), ("recipe", facts.recipe_name), *first]),
        "",
        f"<details><summary>All {len(facts.recipe)} fields of the recipe</summary>",
        "",
        *_values(list(facts.recipe.items())),
        "",
        "</details>",
        "",
        "## Each class",
        "",
        *class_lines(results),
        "",
        "## What is taken for what",
        "",
        *pair_lines(confusion, results),
        "",
        f"![Confusion matrix of the held-out images]({CONFUSION})",
        "",
        " ".join(f"{line}." for line in confusion_caption(confusion)),
        "",
        "## What to do next",
        "",
        *fenced(_next(facts)),
        "",
        "## Machine and versions",
        "",
        *_values(
            [
                ("trained on", facts.device),
                ("precision", facts.precision),
                ("training took", number(facts.seconds, duration)),
                ("images per second", number(facts.images_per_second, "{:,.0f}".format)),
                ("parameters", millions(facts.parameters)),
                ("versions", ", ".join(" ".join(pair) for pair in facts.versions.items())),
                ("date", facts.date),
            ]
        ),
        "",
        "Images per second is the median over the epochs, of training images only.",
        "",
    ]
    return "\n".join(lines)


def reached(results: Sequence[ClassResult]) -> str:
    """Returns the held-out top-1 with its interval and number of images, in words."""
    return _top1(*_totals(results), "held-out image")


def _final(facts: RunFacts, results: Sequence[ClassResult]) -> str:
    """Returns the figure to quote: of the test images where there are some."""
    return _top1(*facts.tested, "test image") if facts.tested else reached(results)


def _top1(right: int, images: int, of: str) -> str:
    if not images:
        return f"top-1 {MISSING}"
    low, high = wilson(right, images)
    return (
        f"{percent(right / images)} top-1 on {plural(images, of)} "
        f"(95 % interval {low * 100:.1f} to {percent(high)})"
    )


def _totals(results: Sequence[ClassResult]) -> tuple[int, int]:
    return sum(result.right for result in results), sum(result.images for result in results)


def _opening(facts: RunFacts, results: Sequence[ClassResult]) -> list[str]:
    right, images = _totals(results)
    what = (
        f"An image classifier for {plural(len(results), 'class', 'classes')}: the network "
        f"{escape(facts.model)}, trained on {plural(facts.train_images, 'image')} of "
        f"{escape(facts.data)}."
    )
    if not images:
        return [f"{what} No image was held out, so nobody knows how good it is."]
    largest = max(result.images for result in results)
    return [
        f"{what} It names {right:,} of {plural(images, 'held-out image')} rightly. To answer the "
        f"largest class every time would get {percent(largest / images)}.",
        "",
        *_tested(facts),
        "The interval (Wilson's) covers the chance of which images were held out, nothing else: "
        "images from another camera or place can do worse.",
    ]


def _tested(facts: RunFacts) -> list[str]:
    """Returns what the figure in the title is of, where it is not of the held-out images."""
    if not facts.tested:
        return []
    return [
        f"The figure in the title is of {plural(facts.tested.images, 'test image')}, by which "
        "nothing was chosen; all others are of the held-out images, by which each epoch was "
        "judged.",
        "",
    ]


def _epoch_rows(kept_epoch: int, epochs: Sequence[Epoch]) -> list[list[str]]:
    """Returns the cells of the epoch that was kept, and of the best if that is another."""
    kept = epochs[kept_epoch - 1]
    best = best_epoch(epochs, kept)
    rows = [("kept", kept)] if best is kept else [("best", best), ("kept", kept)]
    return [
        [
            f"{epoch.epoch} of {len(epochs)} ({name})",
            number(epoch.loss, "{:.3f}".format),
            number(epoch.val_loss, "{:.3f}".format),
            percent(epoch.train_top1),
            percent(epoch.val_top1),
            f"{epoch.learning_rate:.2g}",
            f"{epoch.images_per_second:,.0f}",
            duration(epoch.seconds),
        ]
        for name, epoch in rows
    ]


def _values(rows: Iterable[tuple[str, object]]) -> list[str]:
    return table(("what", "value"), [(escape(name), plain(value)) for name, value in rows])


def _next(facts: RunFacts) -> str:
    model, name = shlex.quote(facts.model), shlex.quote(facts.data)
    path = shlex.quote(facts.data_path or facts.data)
    steps = {
        f"make export MODEL={model} DATA={path}": "to ONNX and TensorRT, checked against torch",
        f"make bench MODEL={model} DATA={name}": "what an image costs on your machine",
        f"make serve MODEL={model} DATA={name}": "the fastest of them, over HTTP",
    }
    width = max(map(len, steps))
    return "\n".join(f"{step:{width}}  # {what}" for step, what in steps.items())
