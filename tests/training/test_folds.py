"""k-fold cross-validation: its parts, its runs and their summary."""

from __future__ import annotations

import csv
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev

import pytest

from artifact.artifact import Artifact
from core.errors import UserError
from export.verify import verify
from training.checkpoint import checkpoint_path, load_checkpoint, run_folder
from training.data import ImageData
from training.datasets import load_data
from training.folds import one_fold
from training.identity import digests_of
from training.options import FolderOptions
from training.records import RunFacts
from training.summary.folds import Fold, in_words, write_folds

Command = Callable[..., subprocess.CompletedProcess[str]]
MakeImages = Callable[..., list[Path]]

FLAGS = shlex.split(
    "--model resnet14 --data pets --recipe-name scratch --recipe.epochs 1 --recipe.crop 8 "
    "--recipe.resize 8 --recipe.batch-size 8 --recipe.workers 0 --recipe.no-calibrate --folds 2"
)
RUNS = [run_folder("resnet14", f"pets-fold{fold}of2") for fold in (1, 2)]
SUMMARY = run_folder("resnet14", "pets-2folds")


def fold(data: Path, number: int, **options: object) -> ImageData:
    return load_data(str(data), FolderOptions(folds=3, fold=number, **options))  # type: ignore[arg-type]


def test_each_image_is_held_out_once_and_each_class_has_its_share(
    folder: Path, make_images: MakeImages
) -> None:
    copied = make_images(folder / "eel", 4)[0]
    (folder / "eel" / "copy.png").write_bytes(copied.read_bytes())
    parts = [fold(folder, number) for number in (1, 2, 3)]
    assert [part.name for part in parts] == [f"pets-fold{number}of3" for number in (1, 2, 3)]
    held = [source for part in parts for source, _ in part.val]
    assert len(held) == len(set(held)) == 25
    for part in parts:
        assert not {source for source, _ in part.train} & {source for source, _ in part.val}
        assert len(part.train) + len(part.val) == 25
        counts = Counter(part.labels[label] for _, label in part.val)
        assert counts["cat"] in (3, 4)
        assert counts["dog"] in (3, 4)
        names = {Path(str(source)).name for source, _ in part.val if "eel" in str(source)}
        assert ("copy.png" in names) == ("0.png" in names)  # one image, in one fold


def test_folds_follow_from_content(folder: Path) -> None:
    def digests() -> list[set[bytes]]:
        parts = [fold(folder, number) for number in (1, 2, 3)]
        return [set(digests_of(part.val, part.digests)) for part in parts]

    before = digests()
    for label in ("cat", "dog"):
        for number in range(10):
            (folder / label / f"{number}.png").rename(folder / label / f"as{9 - number}.png")
    assert digests() == before


def test_groups_stay_together_beside_a_test_part(tmp_path: Path, make_images: MakeImages) -> None:
    for label in ("ill", "well"):
        for patient in range(12):
            make_images(tmp_path / "wards" / label, 2 + patient % 3, suffix=f"p{patient}.png")
    options = {"group_by": r"p(\d+)\.png", "test_fraction": 0.2}
    parts = [fold(tmp_path / "wards", number, **options) for number in (1, 2, 3)]
    patients = [{Path(str(source)).name[1:] for source, _ in part.val} for part in parts]
    assert len({part.test[0] for part in parts}) == 1
    held = [re.findall(r"p(\d+)", " ".join(names)) for names in patients]
    assert sum(len(set(each)) for each in held) == len(set().union(*held)) < 12
    for part in parts:
        counts = Counter(label for _, label in part.val)
        assert counts[0] == pytest.approx(len(part.val) / 2, abs=2)
    assert any("are for val" in line for line in parts[0].scan.lines())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"folds": 1}, r"--folds 1: .*at least 2"),
        ({"fold": 1}, r"--fold 1: of how many"),
        ({"folds": 3, "fold": 4}, r"--fold 4: .*from 1 to 3"),
        ({"folds": 11}, r"--folds 11: cat, dog have fewer different images"),
        ({"folds": 3, "group_by": r"^(\w)"}, r"--folds 3: cat, dog have fewer groups than"),
    ],
)
def test_mistakes(folder: Path, options: dict[str, object], reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        load_data(str(folder), FolderOptions(**options))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_parts_that_are_given_are_not_split(tmp_path: Path, make_images: MakeImages) -> None:
    with pytest.raises(UserError, match=r"digits has parts of its own.*--test-fraction"):
        load_data("digits", FolderOptions(folds=5, test_fraction=0.1))
    for part in ("train", "val"):
        for label in ("a", "b"):
            make_images(tmp_path / "set" / part / label, 3)
    with pytest.raises(UserError, match=r"--folds 5: .*validation folder already, with 6 images"):
        load_data(str(tmp_path / "set"), FolderOptions(folds=5))


def test_a_summary_has_mean_and_spread(tmp_path: Path) -> None:
    tops = (0.5, 0.7, 0.9)
    folds = [
        Fold(run=f"r{top}", train_images=20, epoch=3, metrics={"images": 10, "top1": top, "x": 1})
        for top in tops
    ]
    path, spread = write_folds(
        tmp_path / "3folds", folds, title="net on pets", recipe_name="small", command="train"
    )
    assert spread == {"top1": (pytest.approx(0.7), pytest.approx(0.2))}
    assert in_words(spread) == "top-1 70.0 % ± 20.0"
    page = path.read_text()
    assert "70.0 % top-1" in page
    assert "21 of 30 images" in page
    assert "20.0 points" in page
    assert "(../r0.5/README.md)" in page


def test_folds_are_runs_that_are_resumed(
    here: Path, folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without pictures, which take longer than the runs.
    def write_command(run: Path, facts: RunFacts, *_: object) -> None:
        (run / "README.md").write_text(facts.command)

    monkeypatch.setattr("training.fit.write_summary", write_command)
    ran = command("training", *FLAGS)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == str(SUMMARY / "README.md")
    with (SUMMARY / "folds.csv").open() as file:
        rows = list(csv.DictReader(file))
    checkpoints = [load_checkpoint(checkpoint_path(run)) for run in RUNS]
    tops = [checkpoint.metrics["top1"] for checkpoint in checkpoints]
    assert [float(row["top1"]) for row in rows] == tops
    said = f"top-1 {100 * fmean(tops):.1f} % ± {100 * stdev(tops):.1f}"
    assert said in ran.stdout
    for number, checkpoint in enumerate(checkpoints, start=1):
        assert checkpoint.options.fold == number
        again = load_data("pets", checkpoint.options)
        assert set(digests_of(again.train, again.digests)) == checkpoint.trained_on
    assert "--fold 2" in (RUNS[1] / "README.md").read_text()

    assert f"{RUNS[0]} holds a finished run" in command("training", *FLAGS).stderr
    before = checkpoint_path(RUNS[0]).stat().st_mtime_ns
    checkpoint_path(RUNS[1]).unlink()
    RUNS[1].rename("moved")
    ran = command("training", "--model", "resnet14", "--data", "pets", "--folds", "2", "--resume")
    assert ran.returncode == 0, ran.stderr
    assert checkpoint_path(RUNS[0]).stat().st_mtime_ns == before
    assert load_checkpoint(checkpoint_path(RUNS[1])).metrics["top1"] == tops[1]
    other = command("training", *FLAGS, "--resume", "--recipe.seed", "1")
    assert re.search(r"fold1of2 cannot be resumed .*seed was 0, is 1", other.stderr)
    assert "Traceback" not in other.stderr


def test_folds_of_a_named_data_set_leave_its_held_out_images_to_test_on() -> None:
    whole = load_data("digits")
    parts = [load_data("digits", FolderOptions(folds=3, fold=number)) for number in (1, 2, 3)]
    assert [part.name for part in parts] == [f"digits-fold{number}of3" for number in (1, 2, 3)]
    held = Counter(digest for part in parts for digest in digests_of(part.val, {}))
    assert held == Counter(digests_of(whole.train, {}))
    for part in parts:
        assert digests_of(part.test, {}) == digests_of(whole.val, {})
        assert not set(digests_of(part.train, {})) & set(digests_of(part.val, {}))
    again = load_data("digits", FolderOptions(folds=3, fold=2))
    assert digests_of(again.train, {}) == digests_of(parts[1].train, {})
    # As cross-validation makes the second of the first.
    other = one_fold(parts[0], None, FolderOptions(folds=3, fold=2))
    assert digests_of(other.train, {}) == digests_of(parts[1].train, {})


def test_a_network_that_is_not_there_is_told_before_the_images_are_read(
    here: Path, folder: Path, command: Command
) -> None:
    (folder / "cat" / "0.png").write_bytes(b"no image")
    ran = command("training", *FLAGS, "--model", "resnet15")
    assert "resnet15" in ran.stderr
    ran = command("training", *FLAGS, "--skip-unreadable", "--recipe.weights", "imagenet")
    assert ran.returncode == 1
    assert "fold 1 of 2" not in ran.stderr
    assert not Path("runs").exists()


def test_the_run_of_a_fold_is_exported(here: Path, folder: Path, command: Command) -> None:
    assert command("training", *FLAGS, "--fold", "2").returncode == 0
    assert '--fold 2of2"' in (RUNS[1] / "README.md").read_text()
    export = ("run", "--model", "resnet14", "--data", "pets", "--formats", "onnx-fp32")
    ran = command("export", *export)
    assert "--fold 2of2 exports that of a fold" in ran.stderr
    assert "--fold 2: it must be" in command("export", *export, "--fold", "2").stderr
    ran = command("export", *export, "--fold", "2of2", "--max-batch", "2")
    assert ran.returncode == 0, ran.stderr
    artifact = Artifact.load(Path("artifacts/resnet14-pets-fold2of2/onnx-fp32"))
    assert artifact.source.fold == "2of2"
    assert artifact.rebuild_command.startswith(
        "python -m export run --model resnet14 --data pets --fold 2of2 "
    )
    assert artifact.metrics is not None
    assert artifact.metrics.images == 10  # those that it held out
    assert verify(artifact).against.startswith("torch")


def test_folds_are_for_one_device(here: Path, folder: Path, command: Command) -> None:
    ran = command("training", *FLAGS, "--machine.devices", "2", "--machine.accelerator", "cpu")
    assert ran.returncode == 1
    assert "--folds 2 trains on one device" in ran.stderr.splitlines()[-1]
