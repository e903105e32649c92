from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from counting import Counting
from PIL import Image

from artifact.artifact import Artifact
from artifact.records import Logits
from artifact.runtimes.base import Runtime
from artifact.runtimes.batch_size import MOST_ON_CPU
from core.errors import UserError
from core.preprocess import Pixels, encode_png
from predict.classifier import NOT_FINITE, Classifier
from predict.ordered import AHEAD, in_order
from predict.pipeline import Item, When, classify, file_item

RED = encode_png(Image.new("RGB", (40, 40), "red"))


class Brightest(Counting):
    """Answers each image with its brightest pixel, a white one with what is no number."""

    name = "brightest"

    def __call__(self, pixels: Pixels) -> Logits:
        super().__call__(pixels)
        logits = pixels.max(axis=(1, 2)).astype(np.float32)
        logits[logits.min(axis=1) == 255] = np.nan
        return logits


def test_order_is_kept_and_little_is_taken_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1, 1001):
            taken.append(number)
            yield number

    def work(batch: object) -> list[int]:
        assert isinstance(batch, list)
        time.sleep(0.01 if batch[0] % 2 else 0)
        return [-each for each in batch]

    results = in_order(work, items(), threads=2, size=3)
    for number in range(1, 201):
        assert next(results) == -number
        assert len(taken) <= number + 3 * AHEAD * 2
    results.close()  # type: ignore[attr-defined]
    assert len(taken) < 1000


def test_a_failure_of_the_work_ends_it() -> None:
    def work(batch: object) -> list[int]:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        list(in_order(work, range(100), threads=2, size=1))


@pytest.mark.parametrize("parallel", [False, True])
def test_a_runtime_that_takes_one_call_at_a_time_gets_one(
    artifact_path: Path, parallel: bool
) -> None:
    runtime = Brightest(parallel)
    classifier = Classifier(Artifact.load(artifact_path), runtime, threads=4, batch_size=1)
    items = [Item(path=str(n), load=lambda: RED) for n in range(12)]
    assert [o.row.path for o in classify(classifier, items)] == [str(n) for n in range(12)]
    assert (runtime.most > 1) == parallel


@pytest.mark.parametrize("name", ["brightest", "ort-cuda"])
def test_only_a_gpu_tries_large_batches(
    make_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def largest(runtime: Runtime, pixels: Pixels, most: int) -> int:
        return most

    runtime = Brightest(parallel=False)  # is locked, wherever it computes
    runtime.name = name
    monkeypatch.setattr("predict.classifier.best_batch_size", largest)
    artifact = Artifact.load(make_artifact(batch_range=(1, 9)))
    assert Classifier(artifact, runtime).batch_size == (9 if name == "ort-cuda" else MOST_ON_CPU)


def test_one_bad_image_spoils_no_other(artifact_path: Path, tmp_path: Path) -> None:
    def unreadable() -> bytes:
        raise UserError("the disk is gone")

    white = encode_png(Image.new("RGB", (40, 40), "white"))
    (tmp_path / "red.png").write_bytes(RED)
    (tmp_path / "folder.png").mkdir()
    items = [
        file_item(tmp_path / "red.png", 1000),
        Item(path="gone", load=unreadable),
        Item(path="white", load=lambda: white),
        Item(path="text", load=lambda: b"text"),
        file_item(tmp_path / "nowhere.png", 1000),
        file_item(tmp_path / "folder.png", 1000),
        file_item(tmp_path / "red.png", 10),
        Item(path="red", load=lambda: RED),
    ]
    for size in (1, 4):
        classifier = Classifier(Artifact.load(artifact_path), Brightest(True), batch_size=size)
        rows = [outcome.row for outcome in classify(classifier, items)]
        assert [row.path for row in rows] == [item.path for item in items]
        first, *bad, last = rows
        assert first.prediction == last.prediction
        assert first.prediction is not None
        assert first.prediction.label == "red"
        assert [row.prediction for row in bad] == [None] * len(bad)
        for row, words in zip(
            bad,
            ("the disk is gone", NOT_FINITE, "not a", "No such", "directory", "10 bytes"),
            strict=True,
        ):
            assert words in (row.error or "")


@pytest.mark.parametrize("when", ["any", "ahead", "now"])
@pytest.mark.parametrize("keep", [False, True])
def test_when_an_item_is_read(artifact_path: Path, when: When, keep: bool) -> None:
    here = threading.current_thread()
    readers: set[str] = set()

    def load() -> bytes:
        thread = threading.current_thread()
        readers.add("here" if thread is here else thread.name.partition("_")[0])
        return RED

    def broken() -> bytes:
        raise UserError("lost")

    items = [Item(path="a", load=load, when=when), Item(path="b", load=broken, when=when)]
    with Classifier.open(artifact_path, batch_size=2) as classifier:
        good, bad = classify(classifier, items, keep=keep)
    assert good.row.prediction is not None
    assert bad.row.error == "lost"
    assert readers == {{"any": "predict", "ahead": "read", "now": "here"}[when]}
    assert (good.data, bad.data) == (RED if keep else None, None)
