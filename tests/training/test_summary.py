from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from report.format import duration
from report.markdown import escape, fenced
from training.records import Answers, Epoch, RunFacts
from training.summary.confusion import (
    chance,
    class_results,
    confused_pairs,
    most_confused,
    shown_classes,
    wilson,
)
from training.summary.readme import best_epoch, doubts, readme
from training.summary.write import write_summary

# Rows the true class: 20 cats, 4 dogs, no eel.
CONFUSION = np.array([[17, 3, 0], [1, 2, 1], [0, 0, 0]])


def facts(labels: tuple[str, ...] = ("cat", "dog", "eel"), **fields: Any) -> RunFacts:
    given: dict[str, Any] = {
        "model": "resnet14",
        "data": "pets",
        "labels": labels,
        "recipe_name": "scratch",
        "recipe": {"epochs": 3, "crop": 32, "teacher": None},
        "command": "python -m training --model resnet14 --data pets",
        "origin": "random, seed 0",
        "train_images": 96,
        "val_images": int(CONFUSION.sum()),
        "kept_epoch": 3,
        "parameters": 195_738,
        "device": "a CPU",
        "precision": "32-true",
        "versions": {"torch": "2.14.1"},
        "date": "2026-11-22",
    }
    return RunFacts(**(given | fields))


def epochs(*val_top1: float, train_top1: float = 0.8) -> list[Epoch]:
    return [
        Epoch(
            epoch=index + 1,
            loss=1 / (index + 1),
            train_top1=train_top1,
            val_loss=0.5,
            val_top1=top1,
            learning_rate=0.1,
            images_per_second=100.0,
            train_seconds=10.0,
            val_seconds=2.0,
        )
        for index, top1 in enumerate(val_top1)
    ]


def warnings_in(text: str) -> list[str]:
    """Returns the warnings that a run's page begins with."""
    return [line for line in text.splitlines() if line.startswith("- **")]


def test_wilson_interval_of_a_known_case() -> None:
    # Newcombe 1998, Statistics in Medicine 17, Table I, method 3: 81/263, 15/148, 0/20, 1/29.
    for right, images, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(right, images) == pytest.approx((low, high), abs=5e-5)


def test_classes_and_pairs_by_hand() -> None:
    cat, dog, eel = class_results(CONFUSION, ("cat", "dog", "eel"))
    assert (cat.images, cat.right, cat.top1, cat.precision) == (20, 17, 0.85, 17 / 18)
    assert (cat.taken_for, cat.times, cat.few) == (1, 3, False)
    assert (dog.images, dog.top1, dog.precision, dog.few) == (4, 0.5, 2 / 5, True)
    assert (eel.images, eel.top1, eel.precision, eel.taken_for) == (0, None, 0.0, None)
    assert (cat.f1, dog.f1, eel.f1) == pytest.approx((34 / 38, 4 / 9, 0.0))
    pairs = [(pair.true, pair.predicted, pair.count) for pair in confused_pairs(CONFUSION)]
    assert pairs == [(0, 1, 3), (1, 0, 1), (1, 2, 1)]
    assert most_confused(CONFUSION, 2) == [0, 1]


def test_readme_says_what_was_reached_and_what_to_know() -> None:
    text = readme(facts(), epochs(0.5, 0.9, 0.79, train_top1=0.95), CONFUSION)
    low, high = wilson(19, 24)
    title = text.splitlines()[0]
    for part in ("resnet14", "pets", "79.2 %", "24", f"{low * 100:.1f} to {high * 100:.1f} %"):
        assert part in title
    assert "83.3 %" in text  # the share of the largest class
    chance_level, not_best, few = warnings_in(text)
    assert "19 of 24" in chance_level
    assert re.search(r"Epoch 3\b.*Epoch 2\b.* 90\.0 %", not_best)
    assert "2 of 3 classes" in few
    assert "| cat | 20 | 17 | 85.0 % | 94.4 % | 89.5 % | dog (3 times) |" in text
    assert "| cat | dog | 3 | 15.0 % |" in text
    assert "training took | not measured" in text
    assert "make export MODEL=resnet14 DATA=pets" in text


def test_a_good_run_has_nothing_to_know_first() -> None:
    text = readme(
        facts(("a", "b"), kept_epoch=2),
        epochs(0.5, 1.0, train_top1=0.99),
        np.eye(2, dtype=np.int64) * 12,
    )
    assert warnings_in(text) == []
    assert confused_pairs(np.eye(2, dtype=np.int64) * 12) == []


def test_what_is_learned_but_does_not_hold_is_overfitting() -> None:
    two = facts(("a", "b"), kept_epoch=1, val_images=40)
    text = readme(two, epochs(0.79, train_top1=0.95), np.array([[17, 3], [5, 15]]))
    (overfitting,) = warnings_in(text)
    assert re.search(r"95\.0 %.* 79\.0 %", overfitting)


@pytest.mark.parametrize(
    ("confusion", "same"),
    [
        ([[8, 0, 0], [8, 0, 0], [8, 0, 0]], "8"),  # one answer for everything
        ([[90, 0], [9, 1]], "90"),
        ([[2, 0], [0, 2]], None),
        ([[1, 0], [0, 1]], "1"),  # too few to tell
        ([[0, 0], [0, 0]], None),
    ],
)
def test_chance_is_what_one_answer_gets(confusion: list[list[int]], same: str | None) -> None:
    words = chance(np.array(confusion))
    assert (words.split()[-1] if words else None) == same


def test_an_average_that_lags_its_weights_is_named() -> None:
    confusion = np.array([[8, 4], [4, 8]])
    lagging, close = (facts(("a", "b"), weights_top1=top1) for top1 in (0.95, 0.7))
    (_, words) = doubts(lagging, epochs(0.5, 0.6, 0.66), confusion)
    assert re.search(r"66\.0 %.* 95\.0 %", words)
    assert len(list(doubts(close, epochs(0.5, 0.6, 0.66), confusion))) == 1


def test_a_tied_epoch_is_not_a_better_one() -> None:
    first, second = epochs(0.9, 0.9)
    assert best_epoch([first, second], second) is second
    assert best_epoch([first, second], first) is first
    text = readme(facts(("a", "b"), kept_epoch=2), [first, second], np.eye(2, dtype=np.int64) * 12)
    assert warnings_in(text) == []
    assert "(best)" not in text


def test_the_kept_epoch_is_the_one_that_is_judged() -> None:
    text = readme(facts(kept_epoch=2), epochs(0.5, 0.9, 0.79), CONFUSION)
    chance_level, few = warnings_in(text)
    assert "19 of 24" in chance_level
    assert "2 of 3 classes" in few


def test_names_are_shown_as_they_are() -> None:
    assert escape("a|b\n`c` <b>*d*</b> _e_ f_g") == (r"a\|b \`c\` \<b\>\*d\*\</b\> \_e\_ f_g")
    assert fenced("a ``` b") == ["````sh", "a ``` b", "````"]
    text = readme(facts(("a|b", "c\nd", "<i>")), epochs(0.5, 0.6, 0.7), CONFUSION)
    assert r"| a\|b | 20 |" in text
    assert "| c d | 4 *few* |" in text
    assert r"| \<i\> | 0 *few* | 0 | not measured |" in text


def test_durations() -> None:
    assert [duration(seconds) for seconds in (8.44, 59, 200)] == ["8.4 s", "59 s", "3 min 20 s"]
    assert duration(7500) == "2 h 05 min"


@pytest.mark.parametrize("count", [1, 2, 50])
def test_files_of_a_run(tmp_path: Path, count: int) -> None:
    page = write_summary(tmp_path, facts(kept_epoch=count), epochs(*[0.5] * count), CONFUSION)
    assert page == tmp_path / "README.md"
    for name in ("curves.png", "confusion.png"):
        with Image.open(tmp_path / name) as image:
            assert 300 < image.width < 4000
            assert image.convert("L").getextrema() != (255, 255)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "per_class.csv").read_text())))
    assert [row["class"] for row in rows] == ["cat", "dog", "eel"]
    assert float(rows[0]["top1"]) == 0.85
    assert rows[0]["most_often_taken_for"] == "dog"
    assert rows[2]["top1"] == ""


def test_a_thousand_classes_show_the_most_confused(tmp_path: Path) -> None:
    confusion = np.eye(1000, dtype=np.int64) * 50
    confusion[7, 900] = 9
    confusion[333, 12] = 5
    assert shown_classes(confusion) == [7, 900, 12, 333]
    labels = tuple(f"class {index}" for index in range(1000))
    whole = facts(labels, val_images=int(confusion.sum()), kept_epoch=1)
    text = write_summary(tmp_path, whole, epochs(0.5), confusion).read_text()
    assert "4 of 1,000 classes" in text
    assert "| class 7 | class 900 | 9 |" in text
    assert "| class 333 | class 12 | 5 |" in text
    assert "The 10 worst:" in text
    assert len((tmp_path / "per_class.csv").read_text().splitlines()) == 1001


def test_many_classes_and_no_confusion() -> None:
    assert shown_classes(np.eye(40, dtype=np.int64)) == list(range(20))


def test_the_title_is_of_the_test_images_where_there_are_some() -> None:
    text = readme(facts(tested=Answers(right=9, images=12)), epochs(0.5, 0.6, 0.7), CONFUSION)
    title, *rest = text.splitlines()
    assert re.search(r"75\.0 %.* 12 ", title)
    assert "12 test images" in "\n".join(rest)
    assert "19 of 24" in text
