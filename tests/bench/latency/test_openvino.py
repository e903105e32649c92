from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from artifact.artifact import Artifact
from artifact.golden import check_golden
from artifact.runtimes.base import RuntimeUnavailable, load_runtime

Artifacts = Callable[..., Artifact]


def test_openvino_answers_what_the_artifact_says(make_artifact: Artifacts) -> None:
    pytest.importorskip("openvino")
    artifact = make_artifact()
    pixels, golden = artifact.golden()
    with load_runtime("openvino", artifact, threads=1) as runtime:
        check_golden(runtime, artifact)
        for count in (1, 3, 2, 1):  # up and down: a request's buffers must follow
            logits = runtime(pixels[:count])
            assert logits.dtype == np.float32
            np.testing.assert_allclose(logits, golden[:count], rtol=1e-5)


def test_an_answer_outlives_the_next_call(make_artifact: Artifacts) -> None:
    pytest.importorskip("openvino")
    artifact = make_artifact()
    pixels, golden = artifact.golden()
    with load_runtime("openvino", artifact, threads=1) as runtime:
        first = runtime(pixels[:1])
        runtime(pixels[1:2])
        np.testing.assert_allclose(first, golden[:1], rtol=1e-5)


def test_calls_may_come_from_several_threads(make_artifact: Artifacts) -> None:
    pytest.importorskip("openvino")
    artifact = make_artifact()
    pixels, golden = artifact.golden()
    with load_runtime("openvino", artifact, threads=1) as runtime, ThreadPoolExecutor(6) as pool:
        picks = [(start, stop) for start in range(3) for stop in range(start + 1, 4)] * 20
        answers = pool.map(lambda pick: runtime(pixels[slice(*pick)]), picks)
        for pick, logits in zip(picks, answers, strict=True):
            np.testing.assert_allclose(logits, golden[slice(*pick)], rtol=1e-5)


def test_fp32_is_computed_in_fp32(make_artifact: Artifacts) -> None:
    openvino = pytest.importorskip("openvino")
    with load_runtime("openvino", make_artifact(), threads=1) as runtime:
        for requests in (runtime._single, runtime._batched):  # type: ignore[attr-defined]
            compiled = requests.compiled
            assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
            assert compiled.get_property("INFERENCE_NUM_THREADS") == 1


def test_without_openvino_it_says_what_to_install(
    make_artifact: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RuntimeUnavailable, match=r"pip install '\.\[openvino\]'"):
        load_runtime("openvino", make_artifact(), threads=1)
