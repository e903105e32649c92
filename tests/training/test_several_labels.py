"""Images with any number of labels: their CSV file, parts, loss, figures and run."""

from __future__ import annotations

import csv
import json
import math
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from several_labels import LABELS, mark_images, marked_folder, write_csv
from sklearn.metrics import average_precision_score, f1_score

from core.errors import UserError
from training.checkpoint import checkpoint_path, load_checkpoint, run_folder
from training.data import ImageData
from training.datasets import load_data
from training.folds import one_fold
from training.losses import make_multi_loss
from training.options import FolderOptions
from training.recipe import Recipe
from training.stratification import deal
from training.summary.label_figures import expit, label_figures
from training.temperature import Outputs, calibrate
from training.thresholds import best_f1, label_thresholds

Command = Callable[..., subprocess.CompletedProcess[str]]

RUN = run_folder("resnet14", "marked")
RECIPE = Recipe(epochs=1, batch_size=8, learning_rate=0.1, label_smoothing=0.0)


@pytest.fixture
def marked(here: Path) -> dict[str, tuple[str, ...]]:
    """Makes a folder ``marked`` of images, and returns their labels."""
    return marked_folder(Path("marked"), 120)


def load(**options: object) -> ImageData:
    given = {"labels": "labels.csv", "multi_label": True, **options}
    return load_data("marked", FolderOptions(**given))  # type: ignore[arg-type]


def labels_of(data: ImageData) -> dict[str, tuple[str, ...]]:
    """Returns the labels of each file of all parts."""
    samples = [sample for part in data.parts.values() for sample in part]
    return {
        Path(str(file)).name: tuple(data.labels[each] for each in data.classes_of(index))
        for file, index in samples
    }


def test_labels_in_a_cell_and_in_columns_are_the_same(marked: dict[str, tuple[str, ...]]) -> None:
    data = load()
    assert (data.task, data.labels) == ("multi", LABELS)
    assert labels_of(data) == marked
    none = sum(not had for had in marked.values())
    several = sum(len(had) > 1 for had in marked.values())
    assert none > 0
    assert any(f"{several} have several and {none} none" in line for line in data.scan.lines())
    folder = Path("marked")
    flags = [(name, "x", *(int(each in had) for each in LABELS)) for name, had in marked.items()]
    write_csv(folder / "flags.csv", ("image", "split", *LABELS), flags)
    data = load(labels="flags.csv")
    assert labels_of(data) == marked
    assert any("not used: split" in line for line in data.scan.lines())
    write_csv(folder / "named.csv", ("who", *LABELS, "other"), [(*f[:1], *f[2:], 7) for f in flags])
    assert labels_of(load(labels="named.csv", labels_columns=("who", *LABELS))) == marked
    lines = [(name, each) for name, had in marked.items() for each in had or ("",)]
    write_csv(folder / "lines.csv", ("file", "label"), lines)  # a line for each label
    assert labels_of(load(labels="lines.csv")) == marked
    text = "".join(f"{name};{', '.join(had)}\n" for name, had in marked.items())
    (folder / "plain.csv").write_text(text.replace(", ", "|"))  # without names of columns
    assert labels_of(load(labels="plain.csv")) == marked
    both = [(name, had[0] if had else "", int("red" in had)) for name, had in marked.items()]
    write_csv(folder / "both.csv", ("file", "label", "red"), both)
    found = labels_of(load(labels="both.csv"))
    assert all(("red" in found[name]) == ("red" in had) for name, had in marked.items())


@pytest.mark.parametrize(
    ("header", "row", "options", "words"),
    [
        (("file", "red", "green"), ("{name}", "1", "{odd}"), {}, "line 2: green is '-1'"),
        (("file", "red|green", "blue"), ("{name}", "1", "0"), {}, "without | and ;"),
        (("a", "red", "green"), ("{name}", "1", "0"), {}, "which is the file's"),
        (("file", "note"), ("{name}", "some text"), {}, "no column of labels"),
        (("file", "labels"), ("{name}", "red"), {}, "only the label red, and two"),
        (("file", "labels"), ("{name}", ""), {}, "have no label, and two"),
        (("file", "labels"), ("{name}", "a|b"), {"split_folders": ("none",)}, "no --split-folders"),
        (("file", "labels"), ("{name}", "a|b"), {"labels": None}, "--labels FILE"),
        (
            ("file", "a", "b"),
            ("{name}", "1", "1"),
            {"labels_columns": ("file", "c")},
            "has the col",
        ),
        (("file", "a", "b"), ("{name}", "1", "1"), {"labels_columns": ("file",)}, "at least one"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(
    here: Path,
    header: tuple[str, ...],
    row: tuple[str, ...],
    options: dict[str, object],
    words: str,
) -> None:
    names = mark_images(Path("marked"), 4)
    odd = dict.fromkeys(names, 0) | {min(names): -1}
    rows = [[cell.format(name=name, odd=odd[name]) for cell in row] for name in names]
    write_csv(Path("marked/labels.csv"), header, rows)
    with pytest.raises(UserError) as error:
        load(**options)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("header", "row", "word"),
    [
        ("file,labels", "{name},red,blue", "separate several labels"),
        ("file;labels", "{name};red;blue", "separate several labels"),
        ("file,red,blue", "{name},1,0,1", "4 cells, the first line has 3"),
    ],
)
@pytest.mark.parametrize("multi_label", [False, True])
def test_a_line_longer_than_the_first_loses_no_label(
    here: Path, header: str, row: str, word: str, multi_label: bool
) -> None:
    names = mark_images(Path("marked"), 4)
    lines = [header, *(row.format(name=name) for name in names)]
    Path("marked/labels.csv").write_text("\n".join(lines))
    with pytest.raises(UserError, match=rf"line 2: .*{word}"):
        load(multi_label=multi_label)
    Path("marked/labels.csv").write_text(
        "file,labels,\n" + "".join(f"{name},red|blue,,, \n" for name in names)
    )
    if multi_label:
        assert load().labels == ("blue", "red")  # cells without anything are no labels


@pytest.mark.parametrize("cell", ["red, blue", "red blue", "hot dog,red", "green|blue,red"])
def test_labels_that_a_comma_or_a_blank_separates_are_no_new_label(here: Path, cell: str) -> None:
    names = mark_images(Path("marked"), 12)
    rows = [(name, ("red", "blue|hot dog", "green; red")[at % 3]) for at, name in enumerate(names)]
    write_csv(Path("marked/labels.csv"), ("file", "labels"), rows)
    assert load().labels == ("blue", "green", "hot dog", "red")
    rows[7] = (rows[7][0], cell)
    write_csv(Path("marked/labels.csv"), ("file", "labels"), rows)
    with pytest.raises(UserError, match=rf"line 9: {re.escape(repr(cell))} .* by \| or ;"):
        load()


def test_joined_labels_of_which_no_part_is_alone_are_told(here: Path) -> None:
    names = mark_images(Path("marked"), 12)
    rows = [(name, ("red,blue", "green,red", "hot dog")[at % 3]) for at, name in enumerate(names)]
    write_csv(Path("marked/labels.csv"), ("file", "labels"), rows)
    (warning,) = [line for line in load().scan.lines() if line.startswith("warning")]
    assert "so is 'green,red', 'red,blue'; | or ; separates several" in warning


def test_a_file_that_is_not_there_is_no_image(here: Path) -> None:
    labels = mark_images(Path("marked"), 60)
    rows = [(name, "|".join(had)) for name, had in labels.items()]
    write_csv(Path("marked/labels.csv"), ("file", "labels"), [*rows, ("lost.png", "red")])
    data = load()
    several = sum(len(had) > 1 for had in labels.values())
    assert f"3 labels of 60 images, of which {several} have several" in data.scan.lines()[0]
    assert "not there (marked/lost.png)" in data.scan.lines()[-1]


@pytest.mark.parametrize("gap", ["", "-1", "-1.0"])
def test_a_column_of_a_label_with_gaps_is_not_taken_for_text(here: Path, gap: str) -> None:
    names = mark_images(Path("marked"), 12)
    rows = [
        (name, 16, "True" if at % 2 else "FALSE", at % 3 and 1, "1.0" if at == 5 else gap)
        for at, name in enumerate(names)
    ]
    write_csv(Path("marked/labels.csv"), ("path", "width", "a", "b", "Edema"), rows)
    for columns in ((), ("path", "a", "Edema")):
        with pytest.raises(UserError, match=r"line 2: Edema is .* 11 of 12 lines"):
            load(labels_columns=columns)
    data = load(labels_columns=("path", "a", "b"))
    assert data.labels == ("a", "b")
    found = labels_of(data)
    assert found["001.png"] == ("a", "b")
    assert found["002.png"] == ("b",)
    write_csv(Path("marked/labels.csv"), ("path", "width", "a", "b"), [row[:4] for row in rows])
    assert any("not used: width" in line for line in load().scan.lines())


def test_a_label_that_no_image_has_is_said_and_not_learned(here: Path) -> None:
    names = mark_images(Path("marked"), 12)
    rows = [(name, at % 2, at % 3 == 0, 0) for at, name in enumerate(names)]
    write_csv(
        Path("marked/labels.csv"), ("file", "a", "b", "c"), [(*r[:2], int(r[2]), 0) for r in rows]
    )
    data = load()
    assert data.labels == ("a", "b")
    assert any("no image has c" in line for line in data.scan.lines())


def test_one_class_says_how_several_are_read(marked: dict[str, tuple[str, ...]]) -> None:
    data = load(multi_label=False)
    assert "green|red" in data.labels
    assert any("--multi-label" in line for line in data.scan.lines())
    write_csv(Path("marked/twice.csv"), ("file", "label"), [("000.png", "a"), ("000.png", "b")])
    with pytest.raises(UserError, match="--multi-label"):
        load(labels="twice.csv", multi_label=False)
    with pytest.raises(UserError, match="--multi-label"):
        load_data("digits", FolderOptions(multi_label=True))


def test_each_label_has_its_share_in_each_part(marked: dict[str, tuple[str, ...]]) -> None:
    data = load(test_fraction=0.25)
    totals = Counter(each for had in marked.values() for each in had)
    for part, share in (("test", 0.25), ("val", 0.75 * 0.2)):
        counts = data.targets(data.parts[part]).sum(axis=0)
        for label, count in zip(data.labels, counts.tolist(), strict=True):
            assert abs(count - share * totals[label]) <= 1.5
    again = load(test_fraction=0.25)
    assert again.val == data.val


def test_rare_labels_are_dealt_first() -> None:
    random = np.random.default_rng(0)
    targets = random.random((2000, 30)) < np.linspace(0.002, 0.5, 30)
    units = np.arange(2000)
    parts = deal(targets, units, (0.8, 0.2))
    held = targets[parts == 1].sum(axis=0)
    wanted = np.maximum(1, np.round(0.2 * targets.sum(axis=0)))
    assert (np.abs(held - wanted)[:10] <= 1).all()
    assert (np.abs(held - wanted) <= 0.2 * wanted).all()  # frequent ones follow the rare ones
    assert abs((parts == 1).mean() - 0.2) < 0.03
    folds = deal(targets, units, [0.2] * 5)
    spread = np.array([targets[folds == fold].sum(axis=0) for fold in range(5)])
    assert (np.ptp(spread, axis=0)[:10] <= 2).all()
    assert (np.abs(spread / targets.sum(axis=0) - 0.2)[:, 1:] < 0.05).all()  # of 3 images first
    grouped = deal(targets, units // 4, (0.8, 0.2))[units // 4]
    assert all(len(set(grouped[at : at + 4])) == 1 for at in range(0, 2000, 4))


def rank(
    has: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], held: npt.NDArray[np.bool_]
) -> list[tuple[int, float, int]]:
    """Returns of each way to hold groups out, bool (ways, groups), how bad it is.

    That is the labels that are not learned, how far the share is beyond half or twice of a fifth,
    and the labels of two groups or more that are not held out.
    """
    out, several = held @ has, (has > 0).sum(axis=0) > 1
    untaught = ((out >= has.sum(axis=0)) & (has.sum(axis=0) > 0)).sum(axis=1)
    share = held @ sizes / sizes.sum()
    beyond = np.maximum(np.maximum(0.1 - share, share - 0.4), 0).round(9)
    lost = ((out == 0) & several).sum(axis=1)
    return list(zip(untaught.tolist(), beyond.tolist(), lost.tolist(), strict=True))


def test_groups_are_held_out_as_well_as_any_way_can() -> None:
    best, off = 0, []
    for seed in range(100):
        random = np.random.default_rng(seed)
        groups, labels = int(random.integers(3, 10)), int(random.integers(2, 8))
        units = np.repeat(np.arange(groups), random.integers(2, 40, groups))
        often = random.random((groups, labels)) < random.uniform(0.1, 0.6, labels)
        targets = often[units] & (random.random((len(units), labels)) < 0.5)
        has = np.array([targets[units == each].sum(axis=0) for each in range(groups)])
        ways = np.array(list(product([False, True], repeat=groups)))
        dealt = deal(targets, units, (0.8, 0.2))
        (found,) = rank(has, np.bincount(units), dealt[None] == 1)
        assert found[0] == 0  # no label is only held out
        best += found == min(rank(has, np.bincount(units), ways))
        off.append(abs(float((dealt[units] == 1).mean()) - 0.2))
    assert best >= 95
    assert np.median(off) < 0.06


def test_folds_of_uneven_groups_have_their_shares_and_labels() -> None:
    random = np.random.default_rng(0)
    units = np.repeat(np.arange(60), np.maximum(1, random.lognormal(2, 1, 60)).astype(int))
    often = random.random((60, 12)) < random.uniform(0.15, 0.6, 12)
    targets = often[units] & (random.random((len(units), 12)) < 0.5)
    folds = deal(targets, units, [0.2] * 5)[units]
    shares = np.bincount(folds, minlength=5) / len(units)
    assert (shares >= 0.1).all()
    assert (shares <= 0.4).all()
    assert all(targets[folds == fold].any(axis=0).all() for fold in range(5))


def test_a_label_without_a_held_out_image_is_named(here: Path) -> None:
    names = mark_images(Path("marked"), 40)
    rows = [(name, "a|b" if at < 10 else "ab"[at % 2]) for at, name in enumerate(names)]
    rows[12] = (rows[12][0], "rare")
    write_csv(Path("marked/labels.csv"), ("file", "labels"), rows)
    data = load(group_by=r"(\d\d)\d\.png")
    assert any("no image of rare is held out" in line for line in data.scan.lines())
    assert data.targets(data.val)[:, :2].any(axis=0).all()


def test_groups_of_which_each_is_needed_to_learn_from_are_refused(here: Path) -> None:
    names = mark_images(Path("marked"), 30)
    rows = [(name, "abc"[at // 10]) for at, name in enumerate(names)]
    write_csv(Path("marked/labels.csv"), ("file", "labels"), rows)
    with pytest.raises(UserError, match="none of its 3 groups can be held out"):
        load(group_by=r"(\d)\d\.png")
    with pytest.raises(UserError, match=r"all 30 images are in one group, png, .*--group-by"):
        load(group_by="(png)")


def test_groups_and_folds_keep_together(marked: dict[str, tuple[str, ...]]) -> None:
    pattern = r"(\d\d)\d\.png"  # ten images in a row
    data = load(group_by=pattern)
    sides = [{Path(str(file)).name[:2] for file, _ in part} for part in (data.train, data.val)]
    assert not sides[0] & sides[1]
    options = FolderOptions(folds=3, group_by=pattern)
    folds = [one_fold(data, Path("marked"), replace(options, fold=each)) for each in (1, 2, 3)]
    names = [{Path(str(file)).name[:2] for file, _ in fold.val} for fold in folds]
    assert sum(map(len, names)) == len(set().union(*names)) == 12
    assert all(fold.targets(fold.val).any(axis=0).all() for fold in folds)
    write_csv(Path("marked/few.csv"), ("file", "label"), [("000.png", "a"), ("001.png", "b")])
    with pytest.raises(UserError, match="fewer different images"):
        load(labels="few.csv", folds=2, fold=1)


def test_the_loss_is_binary_cross_entropy() -> None:
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = (torch.rand(5, 3, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    expected = torch.nn.functional.binary_cross_entropy_with_logits
    plain = make_multi_loss(RECIPE, [1, 2, 3], 6)
    torch.testing.assert_close(plain(logits, targets), expected(logits, targets))
    smooth = make_multi_loss(replace(RECIPE, label_smoothing=0.2), [1, 2, 3], 6)
    torch.testing.assert_close(smooth(logits, targets), expected(logits, 0.8 * targets + 0.1))
    balanced = make_multi_loss(replace(RECIPE, class_weights="balanced"), [1, 2, 3], 6)
    weights = torch.where(
        targets > 0, 6 / torch.tensor([2.0, 4, 6]), 6 / torch.tensor([10.0, 8, 6])
    )
    torch.testing.assert_close(balanced(logits, targets), expected(logits, targets, weights))
    focal = make_multi_loss(replace(RECIPE, focal_gamma=2.0), [1, 2, 3], 6)
    wrong = (logits.sigmoid() - targets).abs()
    each = expected(logits, targets, reduction="none")
    torch.testing.assert_close(focal(logits, targets), (wrong**2 * each).mean())
    focal(logits * 1000, targets).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_figures_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    truth = random.random((80, 4)) < 0.3
    truth[:, 3] = False  # a label without images
    scores = np.clip(random.random((80, 4)) + 0.3 * truth, 0, 1)
    found = label_figures(truth, scores, (0.5, 0.6, 0.7, 0.5), list("abcd"))
    assert found.mean_ap == pytest.approx(average_precision_score(truth[:, :3], scores[:, :3]))
    assert found.micro_ap == pytest.approx(average_precision_score(truth, scores, average="micro"))
    answers = scores > [0.5, 0.6, 0.7, 0.5]
    assert found.macro_f1 == pytest.approx(
        f1_score(truth[:, :3], answers[:, :3], average="macro", zero_division=0)
    )
    assert found.micro_f1 == pytest.approx(f1_score(truth, answers, average="micro"))
    assert found.exact == pytest.approx((truth == answers).all(axis=1).mean())
    assert found.labels[3].average_precision is None
    assert found.confusion.sum(axis=(1, 2)).tolist() == [80] * 4
    assert found.confusion[0, 1, 1] == (truth[:, 0] & answers[:, 0]).sum()


def test_thresholds_have_the_best_f1_or_the_wanted_precision() -> None:
    random = np.random.default_rng(0)
    truth = random.random((300, 2)) < 0.3
    scores = np.clip(0.5 * random.random((300, 2)) + 0.3 * truth, 0, 1)
    (first, second), never = label_thresholds(scores, truth, ("a", "b"), None)
    assert never == []
    f1s = [f1_score(truth[:, 0], scores[:, 0] > each) for each in np.sort(scores[:, 0])]
    assert f1_score(truth[:, 0], scores[:, 0] > first) == pytest.approx(max(f1s))
    assert first not in scores[:, 0]  # but in the middle of two
    (first, second), never = label_thresholds(scores, truth, ("a", "b"), 0.9)
    given = scores[:, 1] > second
    assert truth[given, 1].mean() >= 0.9
    lower = np.sort(scores[~given, 1])[::-1]  # with any more, it is less
    for score in lower[:20]:
        assert truth[scores[:, 1] >= score, 1].mean() < 0.9
    scores[:, 0] = 1 - scores[:, 0]  # the wrong way round
    (first, _), never = label_thresholds(scores, truth, ("a", "b"), 0.95)
    assert (first, never) == (1.0, ["a"])
    assert best_f1(scores[:, 0], np.zeros(300, dtype=bool)) == 0.5


def test_a_temperature_is_fitted_for_scores_of_several_labels() -> None:
    random = np.random.default_rng(0)
    true = random.normal(size=(400, 3)).astype(np.float32)
    labels = random.random((400, 3)) < expit(true)
    calibration = calibrate(Outputs(3 * true, labels), None)
    assert calibration.reason is None
    assert calibration.temperature == pytest.approx(3, rel=0.15)
    pairs = sum(each.images for each in calibration.after)
    assert pairs == 1200


def test_a_run_learns_several_labels(in_several: Path) -> None:
    checkpoint = load_checkpoint(checkpoint_path(RUN))
    metrics = checkpoint.metrics
    assert (checkpoint.task, checkpoint.labels) == ("multi", LABELS)
    assert metrics["map"] > 0.9
    assert metrics["test_map"] > 0.9
    assert len(checkpoint.thresholds) == 3
    assert checkpoint.confusion.shape == (3, 2, 2)
    assert checkpoint.confusion.sum(dim=(1, 2)).tolist() == [metrics["images"]] * 3
    best = max(checkpoint.history, key=lambda epoch: epoch.val_map or 0)
    assert checkpoint.history[-1].val_map == best.val_map
    # Its thresholds are those of its own scores.
    data = load(test_fraction=0.2)
    samples = [(np.asarray(pixels(file)), index) for file, index in data.test]
    batch = torch.from_numpy(np.stack([each for each, _ in samples]))
    with torch.inference_mode():
        scores = expit(checkpoint.network()(batch).numpy())
    found = label_figures(data.targets(data.test), scores, checkpoint.thresholds, LABELS)
    assert found.mean_ap == pytest.approx(metrics["test_map"])
    assert found.macro_f1 == pytest.approx(metrics["test_macro_f1"])
    page = (RUN / "README.md").read_text()
    assert f"{100 * metrics['test_map']:.1f} % mAP" in page
    with (RUN / "per_class.csv").open() as file:
        rows = list(csv.DictReader(file))
    # The kept counts are those of the answers by the thresholds, not by 0.5.
    given = [int(row["answered"]) for row in rows]
    assert checkpoint.confusion[:, :, 1].sum(dim=1).tolist() == given
    assert [float(row["threshold"]) for row in rows] == pytest.approx(
        checkpoint.thresholds, abs=1e-6
    )
    listed = (RUN / "images.csv").read_text()
    assert "green|red" in listed
    assert "val_map" in (RUN / "metrics.csv").read_text()


def pixels(file: object) -> object:
    from PIL import Image

    return Image.open(str(file)).convert("RGB")


TINY = shlex.split(
    "--model resnet14 --data marked --labels labels.csv --multi-label --recipe-name scratch "
    "--recipe.epochs 2 --recipe.crop 8 --recipe.resize 8 --recipe.batch-size 32 --recipe.workers 0"
)


def test_the_command_trains_with_what_several_labels_allow(
    marked: dict[str, tuple[str, ...]], command: Command
) -> None:
    more = shlex.split(
        "--recipe.mixup 0.2 --recipe.cutmix 0.2 --recipe.focal-gamma 1 --recipe.class-weights "
        "balanced --recipe.ema 0.9 --recipe.patience 3 --recipe.answer-precision 0.7"
    )
    ran = command("training", *TINY, *more)
    assert ran.returncode == 0, ran.stderr
    assert "3 labels" in ran.stderr
    assert "held-out mAP" in ran.stdout
    plan = json.loads((RUN / "run.json").read_text())
    assert plan["recipe"]["monitor"] == "map"  # by patience
    metrics = load_checkpoint(checkpoint_path(RUN)).metrics
    assert all(math.isfinite(metrics[name]) for name in ("map", "macro_f1", "micro_f1", "top1"))


def test_a_stopped_run_of_several_labels_goes_on(
    marked: dict[str, tuple[str, ...]], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("training.fit.write_summary", stop)
        assert command("training", *TINY).returncode != 0
    assert not RUN.exists()
    ran = command("training", *TINY[:7], "--resume")
    assert ran.returncode == 0, ran.stderr
    checkpoint = load_checkpoint(checkpoint_path(RUN))
    assert len(checkpoint.history) == 2
    assert len(checkpoint.thresholds) == 3
    other = command("training", *TINY[:4], "--labels", "flags.csv", *TINY[6:], "--resume")
    assert other.returncode == 1


def test_folds_of_several_labels_have_a_summary(
    marked: dict[str, tuple[str, ...]], command: Command
) -> None:
    ran = command("training", *TINY, "--recipe.epochs", "1", "--folds", "2")
    assert ran.returncode == 0, ran.stderr
    assert "folds: mAP " in ran.stdout
    text = Path("runs/resnet14-marked-2folds/folds.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert {"map", "micro_f1"} <= rows[0].keys()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--recipe.sampler balanced", "class-weights"),
        ("--recipe.teacher resnet14", "leave it out"),
        ("--recipe.monitor top1", "none, map, macro_f1, val_loss"),
        ("--recipe.answer-precision 2", "from 0.01 to 1"),
    ],
)
def test_what_makes_no_sense_is_refused(
    marked: dict[str, tuple[str, ...]], command: Command, flags: str, words: str
) -> None:
    ran = command("training", *TINY, *shlex.split(flags))
    assert ran.returncode == 1
    assert words in ran.stderr.splitlines()[-1]
    assert not Path("runs").exists()


def test_the_columns_that_may_be_meant_are_named(here: Path) -> None:
    rows = [(number, "odd", name, 1, 0) for number, name in enumerate(mark_images(Path("m"), 4))]
    write_csv(Path("m/labels.csv"), ("id", "note", "my photo", "cat", "dog"), rows)
    with pytest.raises(UserError, match=r"such as --labels-columns 'my photo' cat dog$"):
        load_data("m", FolderOptions(labels="labels.csv", multi_label=True))


def test_one_class_has_no_map() -> None:
    with pytest.raises(UserError, match="top1, macro_f1"):
        replace(RECIPE, monitor="map").for_task("single")
