"""Export of an ONNX graph whose images have several labels that a CSV file names."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from several_labels import LABELS, colours, mark_images, write_csv

from artifact.artifact import Artifact
from export.foreign import load_foreign_again
from predict.evaluate import evaluate
from predict.several import SeveralEvaluation
from training.options import FolderLayout

Command = Callable[..., Any]
SEVERAL = (
    "--labels names.txt --resize 16 --interpolation bilinear --mean 0 --std 1 --multi-label "
    "--data data --formats onnx-fp32"
)


def marked() -> dict[str, tuple[str, ...]]:
    """Makes images that are bright in the channels of their labels, and data/labels.csv."""
    labels = mark_images(Path("data"), 100)
    rows = [(name, *(int(label in had) for label in LABELS)) for name, had in labels.items()]
    write_csv(Path("data/labels.csv"), ("file", *LABELS), rows)
    return labels


@pytest.mark.parametrize(
    ("names", "warned"), [(("red", "green", "blue"), False), (("blue", "red", "green"), True)]
)
def test_images_with_several_labels_give_accuracy_and_thresholds(
    names: tuple[str, ...], warned: bool, here: Path, command: Command
) -> None:
    labels = marked()
    Path("names.txt").write_text("\n".join(names))
    flags = ["--model", "own", "--onnx", str(colours("net.onnx")), *SEVERAL.split()]
    ended = command("export", "run", *flags, "--image-labels", "labels.csv")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert ("cannot be told from chance" in ended.stderr) == warned
    assert ("mAP" in ended.stdout, "top-1" in ended.stdout) == (True, False)
    if warned:
        return
    folder = Path("artifacts/own-net/onnx-fp32")
    artifact = Artifact.load(folder)
    metrics = artifact.metrics
    assert metrics is not None
    assert (metrics.mean_ap, metrics.torch_mean_ap, metrics.top1) == (1, 1, 1)
    # Sigmoids of brightness in [0, 1]: with a label from 0.6 on, without it below.
    assert all(0.5 < each < 0.64 for each in artifact.thresholds)
    card = (folder / "README.md").read_text()
    assert f"| red | {artifact.thresholds[0]:.3f} |" in card
    assert "name: data" in card
    again = load_foreign_again(artifact, None)
    assert again.labelled
    assert again.answering.thresholds == artifact.thresholds
    verified = command("export", "verify", str(folder))
    assert "passed, against onnx" in verified.stdout, verified.stderr
    shown = evaluate(folder, "data", layout=FolderLayout(labels="labels.csv"))
    assert isinstance(shown, SeveralEvaluation)
    assert (shown.images, shown.mean_ap, shown.macro_f1) == (len(labels), 1, 1)


def test_a_flat_folder_is_enough_without_labels(here: Path, command: Command) -> None:
    mark_images(Path("data"), 20)
    Path("names.txt").write_text("red\ngreen\nblue\n")
    flags = ["--model", "own", "--onnx", str(colours("net.onnx")), *SEVERAL.split()]
    ended = command("export", "run", *flags)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert "--image-labels FILE" in ended.stderr
    artifact = Artifact.load(Path("artifacts/own-net/onnx-fp32"))
    assert (artifact.metrics, artifact.thresholds) == (None, (0.5, 0.5, 0.5))
    again = load_foreign_again(artifact, None)
    assert (len(again.calibration), len(again.held_out)) == (16, 4)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--image-labels", "other.csv"), "--image-labels other.csv: No such file"),
        (("--image-labels-columns", "file", "red"), "--image-labels FILE"),
        (("--image-labels", "labels.csv", "--image-labels-columns", "x"), "--image-labels-columns"),
        (("--image-labels", "labels.csv", "--data", "digits"), "--image-labels"),
    ],
)
def test_image_labels_that_do_not_fit(
    words: tuple[str, ...], hint: str, here: Path, command: Command
) -> None:
    marked()
    Path("names.txt").write_text("red\ngreen\nblue\n")
    flags = ["--model", "own", "--onnx", str(colours("net.onnx")), *SEVERAL.split()]
    ended = command("export", "run", *flags, *words)
    assert ended.returncode == 1
    assert hint in ended.stderr
    assert " --labels-columns" not in ended.stderr


def test_artifacts_without_the_thresholds_of_a_later_one_are_told(
    here: Path, command: Command
) -> None:
    marked()
    Path("names.txt").write_text("red\ngreen\nblue\n")
    flags = ["--model", "own", "--onnx", str(colours("net.onnx")), *SEVERAL.split()]
    old, new = Path("artifacts/own-net/onnx-fp32"), Path("artifacts/own-net/onnx-fp16")
    first = command("export", "run", *flags)
    assert (first.returncode, "warning" in first.stderr) == (0, False), first.stderr
    later = [*flags[:-1], new.name]
    second = command("export", "run", *later, "--image-labels", "labels.csv")
    said = f"warning: {old} does not have the thresholds of onnx-fp16 beside it"
    assert (second.returncode, said in second.stderr) == (0, True), second.stderr
    assert f"{old} does not have" in command("export", "show", str(old)).stdout
    answered = command("predict", str(old), "data/000.png")
    assert (answered.returncode, said in answered.stderr) == (0, True), answered.stderr
    assert "thresholds" not in command("predict", str(new), "data/000.png").stderr
    remedy = second.stderr.partition("export again: python -m ")[2].splitlines()[0]
    mended = command(*shlex.split(remedy))
    assert (mended.returncode, "warning" in mended.stderr) == (0, False), mended.stderr
    assert Artifact.load(old).thresholds == Artifact.load(new).thresholds != (0.5, 0.5, 0.5)
    # Without labels again, it is the new one that is told.
    assert said in command("export", "run", *flags).stderr


def test_one_class_by_a_csv_file_and_a_flat_folder(here: Path, command: Command) -> None:
    labels = mark_images(Path("data"), 60)
    rows = [(name, "red" if "red" in had else "blue") for name, had in labels.items()]
    write_csv(Path("data/labels.csv"), ("file", "label"), rows)
    Path("names.txt").write_text("red\ngreen\nblue\n")
    words = SEVERAL.replace("--multi-label ", "").split()
    flags = ["--model", "own", "--onnx", str(colours("net.onnx")), *words]
    ended = command("export", "run", *flags, "--image-labels", "labels.csv")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert Artifact.load(Path("artifacts/own-net/onnx-fp32")).metrics is not None
    flat = command("export", "run", *flags)
    assert (flat.returncode, "(--image-labels FILE)" in flat.stderr) == (1, True)
