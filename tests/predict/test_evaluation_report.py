"""The report of an evaluation: its files, its page in a browser, and its lines in a terminal."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from chromium import Browser
from PIL import Image

from predict.evaluate import evaluate
from predict.evaluation import Evaluation
from predict.evaluation_report import evaluation_report, write_evaluation
from predict.figures import Figures, figures_of
from report.markdown import document
from report.section import Report

NAME = "<b>a&b [red]"
Command = Callable[..., CompletedProcess[str]]
MakeArtifact = Callable[..., Path]


def fill(folder: Path, label: str, colour: tuple[int, int, int], count: int = 3) -> None:
    (folder / label).mkdir(parents=True)
    for number in range(count):
        rgb = tuple(value - number for value in colour)
        Image.new("RGB", (40, 30), rgb).save(folder / label / f"{number}.png")


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    folder = tmp_path / "colours"
    fill(folder, "red", (250, 9, 9))
    fill(folder, "green", (9, 250, 9))
    fill(folder, "blue", (250, 8, 8))  # all of them are red
    return folder


@pytest.fixture
def evaluation(artifact_path: Path, colours: Path, make_artifact: MakeArtifact) -> Evaluation:
    """Returns one with everything there is to be said."""
    fill(colours, NAME, (9, 9, 9), 2)
    for number in range(25):
        (colours / "red" / f"broken{number:02}.png").write_bytes(b"no image")
    other = make_artifact(labels=("green", "red", "blue"))
    return evaluate(artifact_path, colours, against=other)


def section(report: Report, title: str) -> str:
    (text,) = [part for part in document(report).split("\n## ") if part.startswith(f"{title}\n")]
    return text


def test_what_it_says(evaluation: Evaluation) -> None:
    report = evaluation_report(evaluation)
    assert report.title.endswith(": 66.7 % top-1")
    text = " ".join(report.summary)
    for figures in (
        r"\b6 of 9 images\b",
        r"\b25 images\b",  # without an answer
        rf"\b2 images of 1 class .*: {re.escape(NAME)}\.",
        r"\b66\.7 points .*\(p = 0\.031\)",
    ):
        assert re.search(figures, text), figures
    assert "| blue | red | 3 | 100.0 % |" in section(report, "Confusions")
    assert "| blue | 3 | 0 | never answered | 0.0 % | 0.0 % |" in section(report, "Classes")
    assert "| Only the artifact | 6 | 66.7 % |" in section(report, "Against another artifact")
    images = section(report, "Images")
    assert images.count("broken") == 20
    assert re.search(r"\b5 more .*evaluation\.json", images)
    assert len(report.sections[-2].pictures) == 3
    assert "Guo et al. 2017" in document(report)


def test_the_files(evaluation: Evaluation, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "reports"
    page = write_evaluation(evaluation, evaluation_report(evaluation), folder)
    assert page == folder / "evaluation.html"
    names = {file.name for file in folder.iterdir()}
    assert names == {f"evaluation.{suffix}" for suffix in ("html", "json", "md", "png")}
    saved = json.loads((folder / "evaluation.json").read_text())
    assert (saved["images"], saved["right"], saved["top1"]) == (9, 6, 6 / 9)
    assert len(saved["unreadable"]) == 25
    assert saved["unknown"] == {NAME: 2}
    assert saved["classes"][2] == {
        "label": "blue",
        "images": 3,
        "right": 0,
        "predicted": 0,
        "precision": None,
        "recall": 0.0,
        "f1": 0.0,
    }
    assert saved["pairs"] == [{"true": 2, "predicted": 0, "count": 3}]
    assert saved["mistakes"][0].keys() == {"image", "label", "answer", "score"}
    assert saved["against"]["paired"]["only_first"] == 6


def _many(tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    for label, colour in (("red", (250, 9, 9)), ("green", (9, 250, 9)), ("blue", (9, 9, 250))):
        fill(folder, label, colour)
    return folder


def test_no_mistake(artifact_path: Path, tmp_path: Path) -> None:
    report = evaluation_report(evaluate(artifact_path, _many(tmp_path)))
    for part in report.sections:
        if part.title in ("Confusions", "Worst mistakes"):
            assert part.tables == part.pictures == ()
    assert "100.0 %" in report.title


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_in_a_browser(
    browser: Browser, evaluation: Evaluation, tmp_path: Path, dark: bool
) -> None:
    page = write_evaluation(evaluation, evaluation_report(evaluation), tmp_path / "reports")
    shown = browser.open(page, dark=dark)
    shown.wait('document.querySelectorAll(".chart svg").length === 2')
    sizes = '[...document.querySelectorAll(".pictures img")].map(e => e.naturalWidth)'
    assert shown.evaluate(sizes) == [160] * 3  # 40 pixels, four times as large
    assert shown.evaluate('document.querySelectorAll("b").length') == 0
    assert NAME in shown.evaluate("document.body.innerText")
    legend = (
        '[...document.querySelectorAll(".role-legend-title text")].map(e => e.getAttribute("fill"))'
    )
    assert set(shown.evaluate(legend)) == {"#a0a8b3" if dark else "#5b626c"}
    assert shown.errors == []
    assert [url for url in shown.requests[1:] if not url.startswith("data:")] == []


@pytest.mark.parametrize("width", [400, 1280])
def test_no_page_is_wider_than_its_screen(
    browser: Browser, evaluation: Evaluation, tmp_path: Path, width: int
) -> None:
    page = write_evaluation(evaluation, evaluation_report(evaluation), tmp_path / "reports")
    shown = browser.open(page, width=width, mobile=width == 400)
    shown.wait('document.querySelectorAll(".chart svg").length === 2')
    assert shown.evaluate("document.documentElement.scrollWidth") <= width


def test_the_command(
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    artifact_path: Path,
    evaluation: Evaluation,
    here: Path,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    against = evaluation.against
    assert against is not None
    ran = command(
        "pocketnets",
        "evaluate",
        str(artifact_path),
        evaluation.data,
        "--against",
        against.subject.path,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert lines[-1] == "reports/evaluation.html"
    assert any(line.split() == ["Top-1", "66.7", "%", "0.0", "%"] for line in lines)
    paths = (str(artifact_path), evaluation.data, against.subject.path)
    assert len(lines) - sum(len(path) // 80 for path in paths) <= 25
    saved = json.loads((here / "reports" / "evaluation.json").read_text())
    assert saved["top1"] == evaluation.top1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("none", "digits"), "none: "),
        (("{artifact}", "digitz"), " digits?"),
        (("{artifact}", "{data}", "--map", "none.csv"), "none.csv: "),
        (("{artifact}", "{data}", "--runtime", "ort"), "ort-cpu"),
        (("{artifact}", "{data}", "--threads", "0"), "threads is 0"),
        (("{artifact}", "digits", "--labels", "a.csv"), "--labels"),
    ],
)
def test_a_mistake_of_the_user_is_one_line(
    command: Command,
    artifact_path: Path,
    colours: Path,
    here: Path,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    filled = [each.format(artifact=artifact_path, data=colours) for each in arguments]
    ran = command("pocketnets", "evaluate", *filled)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: ")
    assert ran.stderr.count("\n") == 1
    assert words in ran.stderr
    assert not (here / "reports").exists()


@pytest.mark.parametrize("function", ["evaluate.classify", "evaluation_report.write_report"])
def test_an_interruption_leaves_no_report(
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    artifact_path: Path,
    colours: Path,
    here: Path,
    function: str,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"predict.{function}", interrupted)
    ran = command("pocketnets", "evaluate", str(artifact_path), str(colours))
    assert (ran.returncode, ran.stderr.count("\n")) == (130, 1)
    assert ran.stderr.startswith("stopped: ")
    assert list(here.glob("reports/*")) == []


def test_of_many_classes_the_worst_come_first(artifact_path: Path, colours: Path) -> None:
    classes = 1000
    truth = np.arange(40).repeat(2)
    best = np.stack([truth, truth + 1], axis=1)
    best[::4, 0] = 999
    labels = tuple(f"class {index}" for index in range(classes))
    many = figures_of(truth, best, np.full(80, 0.5), labels)
    fields = {field.name: getattr(many, field.name) for field in dataclasses.fields(Figures)}
    found = dataclasses.replace(evaluate(artifact_path, colours), **fields)
    report = evaluation_report(found)
    lines = section(report, "Classes").splitlines()
    assert [line.split(" | ")[0] for line in lines if line.startswith("| class")] == [
        f"| class {index}" for index in range(0, 40, 2)
    ]
    (every,) = [part for part in report.sections if part.title == "All classes"]
    assert len(every.tables[0].rows) == 41  # with the one that is answered, and has no image
    assert every.folded == "All 41 classes"
    assert len(report.figures[0].data["cells"]) == 20 * 20
