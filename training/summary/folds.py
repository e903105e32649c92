"""The summary of a cross-validation: a README with a table, and the same as a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from core.files import staged, write_whole
from report.format import percent, plural, points
from report.markdown import escape, fenced, table

# Names of metrics in a checkpoint, and what they are called; those that a fold lacks are left out.
FIGURES = {
    "map": "mAP",
    "micro_map": "micro mAP",
    "top1": "top-1",
    "macro_f1": "macro-F1",
    "balanced_accuracy": "balanced accuracy",
    "micro_f1": "micro-F1",
    "top5": "top-5",
    "calibration_error": "calibration error",
    "test_map": "test mAP",
    "test_top1": "test top-1",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """The run of one fold.

    Attributes:
        run: name of its folder.
        train_images: number of training images.
        epoch: epoch that was kept, counted from 1.
        metrics: metrics of its checkpoint.
    """

    run: str
    train_images: int
    epoch: int
    metrics: Mapping[str, float]


def write_folds(
    folder: Path, folds: Sequence[Fold], *, title: str, recipe_name: str, command: str
) -> tuple[Path, dict[str, tuple[float, float]]]:
    """Writes ``README.md`` and ``folds.csv`` to ``folder``, whole.

    Args:
        folder: folder of the summary; an earlier one is replaced.
        folds: the runs, at least two.
        title: network and data.
        recipe_name: name of the recipe.
        command: command line that repeats it.

    Returns:
        The path of the README, and mean and sample standard deviation of each figure, by name.
    """
    names = [name for name in FIGURES if all(name in fold.metrics for fold in folds)]
    values = {name: [fold.metrics[name] for fold in folds] for name in names}
    spread = {name: (fmean(each), stdev(each)) for name, each in values.items()}
    with staged(folder) as new:
        page = "\n".join(_page(folds, names, spread, title, recipe_name, command))
        write_whole(new / "README.md", page.encode(errors="replace"))
        write_whole(new / "folds.csv", _csv(folds, names).encode(errors="replace"))
    return folder / "README.md", spread


def in_words(spread: Mapping[str, tuple[float, float]]) -> str:
    """Returns a text: mean and standard deviation of each figure."""
    called = _called(spread)
    return ", ".join(
        f"{called[name]} {percent(mean)} ± {100 * sd:.1f}" for name, (mean, sd) in spread.items()
    )


def _called(names: Collection[str]) -> Mapping[str, str]:
    """Returns what figures are called, if ``names`` are there; of several labels all are exact."""
    return {**FIGURES, "top1": "exact"} if "map" in names else FIGURES


def _page(
    folds: Sequence[Fold],
    names: Sequence[str],
    spread: Mapping[str, tuple[float, float]],
    title: str,
    recipe_name: str,
    command: str,
) -> list[str]:
    called = _called(names)
    columns = ["fold", "learned from", "held out", "epoch kept", *(called[name] for name in names)]
    rows = [
        [
            f"[{number}](../{fold.run}/README.md)",
            f"{fold.train_images:,}",
            f"{fold.metrics['images']:,}",
            f"{fold.epoch}",
            *(percent(fold.metrics[name]) for name in names),
        ]
        for number, fold in enumerate(folds, start=1)
    ]
    rows += [
        ["**mean**", "", "", "", *(f"**{percent(mean)}**" for mean, _ in spread.values())],
        ["standard deviation", "", "", "", *(points(sd) for _, sd in spread.values())],
    ]
    best = "map" if "map" in names else "top1"
    main, (mean, sd) = FIGURES[best], spread[best]
    images = sum(int(fold.metrics["images"]) for fold in folds)
    right = sum(round(fold.metrics["top1"] * fold.metrics["images"]) for fold in folds)
    how = "every label of them right" if "map" in names else "classified correctly"
    return [
        f"# {escape(title)}: {percent(mean)} {main} on average over {len(folds)} folds",
        "",
        f"The images were split into {len(folds)} folds. Each network has learned from all but one "
        f"of them, by the recipe {escape(recipe_name)}, and was judged by that one. So every image "
        f"was held out once, and {right:,} of {plural(images, 'image')} were {how}. "
        f"From fold to fold {main} has a standard deviation of {points(sd)}.",
        "",
        *table(columns, rows, numeric=columns[1:]),
        "",
        "The spread is that of other images to learn from and to be judged by. It is no confidence "
        "interval of the mean: the networks share most of their training images. If epochs were "
        "chosen by held-out images, the figures are too good by a little, as in a single run.",
        "",
        "The networks of the folds are for these figures. The one to use is trained on more "
        "images, without --folds.",
        "",
        "This line repeats it:",
        "",
        *fenced(command),
        "",
    ]


def _csv(folds: Sequence[Fold], names: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("fold", "run", "train_images", "images", "epoch", *names))
    for number, fold in enumerate(folds, start=1):
        figures = [fold.metrics[name] for name in names]
        images = int(fold.metrics["images"])
        writer.writerow((number, fold.run, fold.train_images, images, fold.epoch, *figures))
    return text.getvalue()
