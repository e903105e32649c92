"""An artifact on labelled images, held against what is known of them and of it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artifact.artifact import Artifact
from artifact.records import Reading, Source
from core.errors import UserError
from predict import evaluate as module
from predict.evaluate import evaluate
from predict.evaluation_report import evaluation_report, write_evaluation
from training.identity import digest_of
from training.options import FolderLayout

ROOT = Path(__file__).resolve().parents[2]
COLOURS = {"red": (250, 9, 9), "green": (9, 250, 9), "blue": (9, 9, 250)}
MakeArtifact = Callable[..., Path]
Made = Callable[..., Path]


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Returns four images of each colour, no two alike but the first red one and blue one."""
    folder = tmp_path / "colours"
    for label, colour in COLOURS.items():
        (folder / label).mkdir(parents=True)
        for number in range(4):
            shown = COLOURS["blue"] if (label, number) == ("red", 0) else colour
            rgb = tuple(value - number for value in shown)
            Image.new("RGB", (40, 40), rgb).save(folder / label / f"{number}.png")
    return folder


@pytest.fixture
def learned(colours: Path, here: Path, make_artifact: MakeArtifact) -> Callable[[int], Path]:
    """Returns a function to an artifact whose run learned from the first images of each colour."""

    def make(count: int) -> Path:
        run = here / "runs" / "channels-colours"
        run.mkdir(parents=True)
        checkpoint = run / "checkpoint.ckpt"
        checkpoint.write_bytes(b"weights")
        (run / "run.json").write_text('{"images": 12}')
        with (run / "images.csv").open("w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(("part", "label", "digest", "file"))
            for image in sorted(colours.glob("*/*.png")):
                part = "train" if int(image.stem) < count else "val"
                rows.writerow((part, image.parent.name, digest_of(image).hex(), image))
        return make_artifact(
            weights="trained",
            source=Source(
                origin="trained on colours",
                checkpoint="runs/channels-colours/checkpoint.ckpt",
                sha256=sha256(b"weights").hexdigest(),
                data="colours",
            ),
        )

    return make


def test_figures_of_a_folder(artifact_path: Path, colours: Path) -> None:
    found = evaluate(artifact_path, colours)
    assert (found.images, found.right, found.top5) == (12, 11, None)
    assert [each.label for each in found.classes] == ["red", "green", "blue"]
    assert found.confusion.tolist() == [[3, 0, 1], [0, 4, 0], [0, 0, 4]]
    (mistake,) = found.mistakes
    assert (mistake.image, mistake.label) == (str(colours / "red" / "0.png"), "red")
    assert (mistake.answer, mistake.score) == ("blue", pytest.approx(1.0, abs=1e-4))
    assert (found.unreadable, found.seen, dict(found.unknown)) == ((), 0, {})
    assert (found.subject.runtime, found.subject.seen) == ("ort-cpu", 0)


@pytest.mark.parametrize("name", ["onnx-fp32", "onnx-fp16"])
def test_held_out_top_1_is_the_manifests(
    graphs: dict[str, Artifact], in_trained: Path, name: str
) -> None:
    artifact = graphs[name]
    found = evaluate(artifact.path, "digits")
    assert artifact.metrics is not None
    assert (found.images, found.top1) == (artifact.metrics.images, artifact.metrics.top1)
    assert (found.subject.seen, found.seen) == (0, 0)


def test_the_run_is_found_beside_the_artifacts(graphs: dict[str, Artifact], here: Path) -> None:
    assert evaluate(graphs["onnx-fp32"].path, "digits").subject.seen == 0


def test_torch_is_not_loaded(graphs: dict[str, Artifact], tmp_path: Path) -> None:
    code = (
        "import sys; from predict.evaluate import Evaluate; from pathlib import Path; "
        f"Evaluate(artifact=Path({str(graphs['onnx-fp32'].path)!r}), data='digits', "
        f"out=Path({str(tmp_path)!r}))(); "
        "print(sorted({'torch', 'torchvision'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines()[-2:] == [str(tmp_path / "evaluation.html"), "[]"]


@pytest.mark.parametrize("include", [False, True])
def test_images_it_learned_from_are_left_out(
    learned: Callable[[int], Path], colours: Path, include: bool
) -> None:
    found = evaluate(learned(1), colours, include_seen=include)
    assert (found.seen, found.subject.seen, found.seen_included) == (3, 3, include)
    # The first red one is the only mistake.
    assert (found.images, found.right) == ((12, 11) if include else (9, 9))


def test_a_renamed_copy_was_learned_from_all_the_same(
    learned: Callable[[int], Path], colours: Path
) -> None:
    artifact = learned(1)
    (colours / "green" / "0.png").rename(colours / "green" / "new.png")
    assert evaluate(artifact, colours).seen == 3


def test_all_of_them_learned_from_is_one_line(
    learned: Callable[[int], Path], colours: Path
) -> None:
    with pytest.raises(UserError, match=r"\b12 images\b.*--include-seen"):
        evaluate(learned(4), colours)


@pytest.mark.parametrize("spoiled", ["checkpoint.ckpt", "images.csv"])
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_what_nobody_knows_is_said(
    learned: Callable[[int], Path], colours: Path, here: Path, spoiled: str, how: str
) -> None:
    artifact = learned(1)
    file = here / "runs" / "channels-colours" / spoiled
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(b"another")
    found = evaluate(artifact, colours)
    assert (found.images, found.seen, found.subject.seen) == (12, 0, None)
    assert "runs/channels-colours" in found.subject.source


def test_where_no_report_can_be_written_is_said_first(
    artifact_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(module, "evaluate")  # it would take long
    file = tmp_path / "taken"
    file.touch()
    with pytest.raises(UserError, match=rf"{file}/reports: .*{file}\b"):
        module.Evaluate(artifact=artifact_path, data="digits", out=file / "reports")()


def test_weights_of_others_have_no_run(
    colours: Path, here: Path, make_artifact: MakeArtifact
) -> None:
    weights = here / "best.pth"
    weights.write_bytes(b"weights")
    source = Source(
        origin="weights of best.pth",
        checkpoint=str(weights),
        sha256=sha256(b"weights").hexdigest(),
        data="colours",
        reading=Reading(entry="model", mean=(0.5,), std=(0.5,), assumed=(), flags=()),
    )
    found = evaluate(make_artifact(weights="trained", source=source), colours)
    assert (found.images, found.subject.seen) == (12, None)
    assert found.subject.source.endswith("(weights of best.pth)")


def test_every_image_without_an_answer_is_named(artifact_path: Path, colours: Path) -> None:
    (colours / "red" / "none.jpg").write_bytes(b"no image")
    (colours / "blue" / "empty.png").touch()
    cut = colours / "green" / "0.png"
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    (colours / "red" / "notes.txt").write_text("no image is meant")
    found = evaluate(artifact_path, colours)
    assert (found.images, found.right) == (11, 10)
    reasons = {Path(each.image).name: each.reason for each in found.unreadable}
    assert reasons.keys() == {"none.jpg", "empty.png", "0.png"}
    assert reasons["empty.png"] == "empty"
    assert all(reasons.values())
    assert any("notes.txt" in line for line in found.unused)


def test_the_same_image_in_two_classes_is_said(artifact_path: Path, colours: Path) -> None:
    green = (colours / "green" / "0.png").read_bytes()
    (colours / "green" / "copy.png").write_bytes(green)  # of one class, which contradicts nothing
    found = evaluate(artifact_path, colours)
    blue, red = str(colours / "blue" / "0.png"), str(colours / "red" / "0.png")
    assert (found.images, found.contradictions) == (13, ((blue, red),))
    (said,) = (text for text in evaluation_report(found).summary if text.startswith("Warning"))
    assert f"{blue} = {red}" in said
    named = evaluate(artifact_path, colours, names={"red": "blue"})  # both are of one label
    assert named.contradictions == ()
    assert not any(text.startswith("Warning") for text in evaluation_report(named).summary)


def test_no_image_at_all_is_one_line(artifact_path: Path, colours: Path) -> None:
    for file in colours.glob("*/*.png"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match=rf"\b12 images\b.*{colours}/\w+/\d\.png"):
        evaluate(artifact_path, colours)


def test_classes_are_matched_by_name(artifact_path: Path, colours: Path) -> None:
    (colours / "green").rename(colours / "verde")
    found = evaluate(artifact_path, colours)
    assert (found.images, dict(found.unknown), found.lacking) == (8, {"verde": 4}, ("green",))
    assert found.classes[1].images == 0
    named = evaluate(artifact_path, colours, names={"verde": "green"})
    assert (named.images, named.right, dict(named.unknown), named.lacking) == (12, 11, {}, ())


def test_classes_that_are_no_labels_are_refused(artifact_path: Path) -> None:
    with pytest.raises(UserError, match=r"\b0, 1, 2, 3, 4 and 5 more\b"):
        evaluate(artifact_path, "digits")


def test_a_folder_with_a_file_of_labels(artifact_path: Path, colours: Path) -> None:
    rows = [f"{file.parent.name}/{file.name},{file.parent.name}\n" for file in colours.glob("*/*")]
    labels = colours / "labels.csv"
    labels.write_text("file,label\n" + "".join(rows))
    layout = FolderLayout(labels=str(labels))
    assert evaluate(artifact_path, colours, layout=layout).right == 11


def test_another_artifact_on_the_same_images(
    artifact_path: Path, colours: Path, make_artifact: MakeArtifact
) -> None:
    # It calls red blue and blue red, and has its labels in another order.
    other = make_artifact(labels=("blue", "green", "red"))
    found = evaluate(artifact_path, colours, against=other)
    assert found.against is not None
    assert (found.right, found.against.figures.right) == (11, 5)
    pairs = found.against.paired
    assert (pairs.both, pairs.only_first, pairs.only_second, pairs.neither) == (4, 7, 1, 0)
    assert (pairs.agreement, pairs.difference) == (4 / 12, 6 / 12)
    assert pairs.p_value == pytest.approx(2 * (1 + 8) / 2**8)
    assert [each.label for each in found.against.figures.classes] == ["red", "green", "blue"]
    assert found.against.subject.path == str(other)


def test_one_of_other_labels_cannot_be_compared(
    artifact_path: Path, colours: Path, make_artifact: MakeArtifact
) -> None:
    other = make_artifact(labels=("red", "green", "violet"))
    with pytest.raises(UserError, match=rf"{other}.*\bblue, violet\b"):
        evaluate(artifact_path, colours, against=other)


def test_what_either_learned_from_is_left_out(
    artifact_path: Path, colours: Path, learned: Callable[[int], Path]
) -> None:
    found = evaluate(artifact_path, colours, against=learned(2))
    assert found.against is not None
    assert (found.images, found.seen) == (6, 6)
    assert (found.subject.seen, found.against.subject.seen) == (0, 6)


def test_another_runtime(artifact_path: Path, colours: Path) -> None:
    found = evaluate(artifact_path, colours, runtime="openvino")
    assert (found.subject.runtime, found.right) == ("openvino", 11)
    with pytest.raises(UserError, match="torch"):
        evaluate(artifact_path, colours, runtime="torch")


def test_the_worst_mistakes_come_first(
    artifact_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WORST", 2)
    folder = tmp_path / "greys"
    for label, blue in (("red", 140), ("green", 120), ("blue", 99)):
        for number in range(3):
            (folder / label).mkdir(parents=True, exist_ok=True)
            rgb = (100, 100, blue + 10 * number)
            Image.new("RGB", (8, 8), rgb).save(folder / label / f"{number}.png")
    found = evaluate(artifact_path, folder)
    assert [Path(each.image).relative_to(folder).as_posix() for each in found.mistakes] == [
        "red/2.png",
        "red/1.png",
    ]
    powers = np.exp(np.array([100, 100, 160]) * 0.05)
    assert found.mistakes[0].score == pytest.approx(powers[2] / powers.sum())


@pytest.mark.skipif(sys.platform == "darwin", reason="APFS takes no such name")
def test_a_name_that_is_no_text_can_be_written(
    artifact_path: Path, colours: Path, tmp_path: Path
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    colours.rename(folder)
    (folder / "red" / os.fsdecode(b"\xff.png")).write_bytes(b"no image")
    found = evaluate(artifact_path, folder)
    page = write_evaluation(found, evaluation_report(found), tmp_path / "reports")
    assert r"caf\xe9" in page.read_text()
    saved = json.loads(page.with_suffix(".json").read_text())
    assert saved["unreadable"][0]["image"].endswith(r"caf\xe9/red/\xff.png")
