from __future__ import annotations

import threading
from collections.abc import Callable
from multiprocessing import Pipe

import numpy as np
import pytest
from PIL import Image

import bench.load.in_process
from artifact.artifact import Artifact
from artifact.runtimes.base import load_runtime
from bench.load.in_process import Limit, answer
from core.errors import UserError
from core.preprocess import encode_png

Artifacts = Callable[..., Artifact]


def golden_files(artifact: Artifact) -> list[bytes]:
    pixels, _ = artifact.golden()
    return [encode_png(Image.fromarray(image)) for image in pixels]


def test_an_answer_is_the_whole_way_from_the_file(make_artifact: Artifacts) -> None:
    artifact = make_artifact()
    _, logits = artifact.golden()
    with load_runtime("ort-cpu", artifact, threads=1) as runtime:
        found = [answer(artifact, runtime, file) for file in golden_files(artifact)]
    assert np.allclose(np.concatenate(found), logits, rtol=1e-5)


def test_processes_answer_until_they_are_told_to_end(make_artifact: Artifacts) -> None:
    artifact = make_artifact()
    images = {"one": golden_files(artifact)[:1], "bad": [b"no image"]}
    with Limit(artifact.path, "ort-cpu", {"one": images["one"]}, processes=2) as limit:
        assert limit.throughput("one", 0.2) > 0
        children = [process for process, _ in limit._processes]
        assert all(child.is_alive() for child in children)
    assert not any(child.is_alive() for child in children)
    with (
        pytest.raises(UserError, match=r"cannot be measured: 8 bytes: not a JPEG, PNG"),
        Limit(artifact.path, "ort-cpu", images, processes=1),
    ):
        pytest.fail("a file that is no image was answered")


def test_calls_go_through_all_images_and_are_counted(
    make_artifact: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, seen = make_artifact(), []
    mine, theirs = Pipe()
    worker = threading.Thread(
        target=bench.load.in_process._work,
        args=(theirs, artifact.path, "ort-cpu", {"all": [b"a", b"b"]}),
    )
    now = iter(np.arange(0, 100, 0.5))
    monkeypatch.setattr(
        bench.load.in_process, "answer", lambda artifact, runtime, file: seen.append(file)
    )
    monkeypatch.setattr(bench.load.in_process.time, "perf_counter", lambda: float(next(now)))
    worker.start()
    assert mine.recv() == 0.0
    mine.send(("all", 10.0))
    assert mine.recv() == pytest.approx(2.0)  # a call takes half a second of this clock
    mine.close()
    worker.join(10)
    assert not worker.is_alive()
    assert seen[:4] == [b"a", b"a", b"b", b"a"]  # the first of all is the warm-up
    assert len(seen) == 21
