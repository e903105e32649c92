from __future__ import annotations

import asyncio
import base64
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from artifact.answering import Answering
from artifact.artifact import Artifact
from artifact.prediction_log import PATTERN, LoggedAnswer, artifact_key, log_files, read_log
from artifact.profile import Profiler
from core.errors import UserError
from core.image_statistics import image_statistics
from serving import prediction_log
from serving.predictor import Predictor, Upload
from serving.settings import Settings

Encoded = Callable[..., bytes]


@contextmanager
def serving(path: Path, log: Path, **changes: Any) -> Iterator[Predictor]:
    settings = Settings(artifact=path, threads=1, log_predictions=log, **changes)
    with Predictor(settings, Artifact.load(path)) as predictor:
        yield predictor


def ask(predictor: Predictor, *images: bytes | str, top_k: int | None = 1) -> list[Any]:
    async def answers() -> list[Any]:
        futures = predictor.predict([Upload(image, top_k) for image in images])
        return list(await asyncio.gather(*futures, return_exceptions=True))

    return asyncio.run(answers())


def lost() -> float:
    return (
        REGISTRY.get_sample_value("pocketnets_prediction_log_rows_total", {"outcome": "lost"}) or 0
    )


def wait_until(holds: Callable[[], bool]) -> None:
    """Waits for the writer; a minute is more than it can take."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_row_is_the_answer_with_what_the_image_was_like(
    artifact_path: Path, tmp_path: Path, encoded: Encoded
) -> None:
    log, image = tmp_path / "log", encoded("red")
    with serving(artifact_path, log) as predictor:
        found = ask(predictor, image, base64.b64encode(image).decode(), b"no image", top_k=2)
        artifact = predictor.artifact
    rows = list(read_log(log))
    assert len(rows) == 2  # the refusal is none
    for row, answer in zip(rows, found[:2], strict=True):
        assert [(p.label, p.index, p.score) for p in row.predictions] == [
            (p["label"], p["index"], p["score"]) for p in answer["predictions"]
        ]
        assert row.timings_ms == answer["timings_ms"]
        assert (row.artifact, row.model) == (artifact_key(artifact), artifact.model)
        assert not row.shadow
        assert (row.bytes, row.image, row.labels) == (len(image), None, None)
    red = np.full((1, 8, 8, 3), (255, 0, 0), np.uint8)
    expected = {name: float(each[0]) for name, each in image_statistics(red).items()}
    assert rows[0].statistics == pytest.approx(expected, abs=1e-4)
    assert list(log.iterdir()) == log_files(log)  # no image


def test_an_answer_of_logits_is_logged_as_predictions(
    artifact_path: Path, tmp_path: Path, encoded: Encoded
) -> None:
    with serving(artifact_path, tmp_path) as predictor:
        (logits,) = ask(predictor, encoded("red"), top_k=None)
    assert logits.shape == (3,)
    (row,) = read_log(tmp_path)
    assert row.predictions[0].label == "red"


def test_nothing_is_written_unless_asked(artifact_path: Path, here: Path, encoded: Encoded) -> None:
    with Predictor(Settings(artifact=artifact_path), Artifact.load(artifact_path)) as predictor:
        ask(predictor, encoded())
    assert list(here.iterdir()) == []


def test_images_are_kept_once_if_asked(
    artifact_path: Path, tmp_path: Path, encoded: Encoded
) -> None:
    images = [encoded("red"), encoded("blue"), encoded("red")]
    with serving(artifact_path, tmp_path, log_images=True) as predictor:
        ask(predictor, *images)
    names = [row.image for row in read_log(tmp_path)]
    assert names[0] == names[2] != names[1]
    kept = {file.name: file.read_bytes() for file in (tmp_path / "images").iterdir()}
    assert kept == {str(names[0]): images[0], str(names[1]): images[1]}


def test_about_one_answer_of_so_many_is_logged(
    artifact_path: Path, tmp_path: Path, encoded: Encoded
) -> None:
    image = encoded()
    with serving(artifact_path, tmp_path, log_every=4, queue_size=400) as predictor:
        ask(predictor, *[image] * 400)
    assert 50 < len(list(read_log(tmp_path))) < 160  # 100 expected, 11 standard deviations


def test_files_rotate_and_the_oldest_go_by_the_size_of_all(
    artifact_path: Path, tmp_path: Path, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = encoded()
    monkeypatch.setattr(prediction_log, "MEGABYTE", 1000)  # a row has some 700 bytes
    for _ in range(3):  # starts without answers leave no file, and delete none
        with serving(artifact_path, tmp_path, log_mb=1, log_file_mb=1):
            pass
    assert list(tmp_path.glob(PATTERN)) == []
    with serving(artifact_path, tmp_path, log_mb=4, log_file_mb=1) as predictor:
        ask(predictor, *[image] * 20)
    rows = list(read_log(tmp_path))
    assert 4 <= len(rows) <= 8
    assert sum(file.stat().st_size for file in log_files(tmp_path)) <= 5000
    times = [row.time for row in rows]
    assert times == sorted(times)


def test_a_deleted_file_loses_no_later_row(
    artifact_path: Path, tmp_path: Path, encoded: Encoded
) -> None:
    with serving(artifact_path, tmp_path) as predictor:
        ask(predictor, encoded())
        wait_until(lambda: len(list(tmp_path.glob(PATTERN))) == 1)
        (file,) = log_files(tmp_path)
        wait_until(lambda: file.stat().st_size > 0)
        file.unlink()
        ask(predictor, encoded())
    assert len(list(read_log(tmp_path))) == 1


def test_a_full_queue_loses_rows_and_no_answer(
    artifact_path: Path, tmp_path: Path, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    write = prediction_log.PredictionLog._write

    def slow(log: prediction_log.PredictionLog, waiting: Any) -> None:
        gate.wait()
        write(log, waiting)

    monkeypatch.setattr(prediction_log, "QUEUED", 2)
    monkeypatch.setattr(prediction_log.PredictionLog, "_write", slow)
    before = lost()
    with serving(artifact_path, tmp_path) as predictor:
        found = ask(predictor, *[encoded()] * 10)
        gate.set()
    assert all("predictions" in each for each in found)
    written = len(list(read_log(tmp_path)))
    assert 2 <= written <= 3  # one may have been on its way
    assert lost() - before == 10 - written


def test_a_full_disk_loses_rows_and_no_answer(
    artifact_path: Path,
    tmp_path: Path,
    encoded: Encoded,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(_: object) -> bytes:
        raise OSError(28, "No space left on device")

    before = lost()
    with serving(artifact_path, tmp_path) as predictor:
        monkeypatch.setattr(prediction_log, "dump", full)
        found = ask(predictor, encoded(), encoded())
        wait_until(lambda: lost() - before == 2)
        monkeypatch.undo()
        ask(predictor, encoded())
    assert all("predictions" in each for each in found)
    assert len(list(read_log(tmp_path))) == 1
    assert [record.name for record in caplog.records] == ["pocketnets.log"]  # one of two


def test_a_folder_that_cannot_be_written_stops_the_start(
    artifact_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"cannot be written.*POCKETNETS_LOG_PREDICTIONS"),
        serving(artifact_path, tmp_path / "file"),
    ):
        pass


def test_gauges_tell_the_drift_of_the_last_answers(
    make_artifact: Callable[..., Path],
    tmp_path: Path,
    encoded: Encoded,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prediction_log, "LEAST", 20)
    monkeypatch.setattr(prediction_log, "EVERY", 20)
    profiler = Profiler(Answering())
    random = np.random.default_rng(0)
    for colour in random.integers(0, 255, (100, 3), np.uint8):
        profiler.add(np.full((1, 8, 8, 3), colour, np.uint8), colour[None].astype(np.float32))
    path = make_artifact(profile=profiler.profile())
    settings = Settings(artifact=path, threads=1, log_predictions=tmp_path)
    with Predictor(settings, Artifact.load(path), ("means", "1")) as predictor:
        ask(predictor, *[encoded("black")] * 20)
    rows = list(read_log(tmp_path))
    assert {(row.name, row.version) for row in rows} == {("means", "1")}
    for feature in ("brightness", "classes"):
        labels = {"model": "means", "version": "1", "feature": feature}
        assert (REGISTRY.get_sample_value("pocketnets_drift_psi", labels) or 0) > 0.25


def test_a_line_cut_off_by_a_crash_is_left_out(
    artifact_path: Path, tmp_path: Path, encoded: Encoded
) -> None:
    with serving(artifact_path, tmp_path) as predictor:
        ask(predictor, encoded())
    (file,) = log_files(tmp_path)
    file.write_bytes(file.read_bytes() * 2 + b'{"time": "2026')
    rows = list(read_log(tmp_path))
    assert len(rows) == 2
    assert isinstance(rows[0], LoggedAnswer)


def test_a_line_is_written_whole_or_not_at_all(
    artifact_path: Path, tmp_path: Path, encoded: Encoded
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = lost()
    try:
        with serving(artifact_path, tmp_path) as predictor:
            ask(predictor, encoded())
            wait_until(lambda: len(list(tmp_path.glob(PATTERN))) == 1)
            (file,) = log_files(tmp_path)
            wait_until(lambda: file.stat().st_size > 0)
            few = file.stat().st_size + 50  # as a disk with so much left
            resource.setrlimit(resource.RLIMIT_FSIZE, (few, hard))
            ask(predictor, *[encoded()] * 4)
            wait_until(lambda: lost() - before == 4)
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            ask(predictor, encoded())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert len(list(read_log(tmp_path))) == 2


def test_what_waits_is_bounded_by_its_bytes(
    artifact_path: Path, tmp_path: Path, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    write = prediction_log.PredictionLog._write

    def slow(log: prediction_log.PredictionLog, waiting: Any) -> None:
        gate.wait()
        write(log, waiting)

    monkeypatch.setattr(prediction_log.PredictionLog, "_write", slow)
    image = encoded().ljust(100_000, b"\0")
    monkeypatch.setattr(prediction_log, "HELD", 250_000)
    before = lost()
    with serving(artifact_path, tmp_path) as predictor:
        ask(predictor, *[image] * 10)
        gate.set()
    assert lost() - before in (7, 8)  # one may have been on its way
