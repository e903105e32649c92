"""fp16 beside fp32, in a runtime on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bench.gpu.parity
from artifact.artifact import Artifact
from artifact.runtimes.base import RuntimeUnavailable
from bench.gpu.parity import FILE, ParityRow, fill, parity_section, run
from bench.gpu.process import Budget
from core.errors import UserError
from core.record_file import read_rows

PAIR = ("onnx-fp32", "onnx-fp16")


class PlayedRuntime:
    """Answers random logits that only its precision spoils, from a batch of 8 on."""

    def __init__(self, artifact: Artifact, spoil: Callable[[Any], Any]) -> None:
        self.spoil = spoil if artifact.precision == "fp16" else lambda logits: logits

    def __enter__(self) -> PlayedRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, pixels: Any) -> Any:
        logits = pixels.mean(axis=(1, 2)).astype(np.float32)
        return self.spoil(logits) if len(pixels) >= 8 else logits


def measured(tmp_path: Path, **changes: Any) -> list[ParityRow]:
    options = {"names": ("tiny",), "runtimes": ("ort-cpu",), "batches": (1, 4, 8)}
    artifacts = tmp_path / "artifacts"
    with suppress(UserError):  # the rows say why
        run(tmp_path, Budget(60), artifacts=artifacts, **{**options, **changes})
    return read_rows(tmp_path / FILE, ParityRow)


def test_equal_graphs_agree(tmp_path: Path, make_artifact: Callable[..., Artifact]) -> None:
    for name in PAIR:
        make_artifact("tiny-random", name)
    rows = measured(tmp_path)
    assert [row.batch for row in rows] == [1, 4, 8]
    for row in rows:
        assert (row.relative_error, row.agreement, row.finite) == (0.0, 1.0, True)
        assert row.reason is None


@pytest.mark.parametrize(
    ("spoil", "error", "agreement", "finite"),
    [
        (lambda logits: logits + 0.01 * logits.max(), 0.01, 1.0, True),
        (lambda logits: -logits, 2.0, 0.0, True),
        (lambda logits: logits * np.float32("inf"), None, None, False),
    ],
)
def test_what_shows_only_in_large_batches_is_seen(
    tmp_path: Path,
    make_artifact: Callable[..., Artifact],
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Any], Any],
    error: float | None,
    agreement: float | None,
    finite: bool,
) -> None:
    for name in PAIR:
        make_artifact("tiny-random", name)
    monkeypatch.setattr(
        bench.gpu.parity, "load_runtime", lambda name, artifact: PlayedRuntime(artifact, spoil)
    )
    one, four, eight = measured(tmp_path)
    assert (one.relative_error, four.relative_error) == (0.0, 0.0)
    assert eight.finite is finite
    if error is None:
        assert eight.relative_error is None
        section = parity_section([one, four, eight])
        assert section is not None
        assert "not finite in 1 (tiny, ort-cpu, batch 8)" in section.sentences[0]
    else:
        assert eight.relative_error == pytest.approx(error, rel=1e-3)
        assert eight.agreement == agreement


def test_what_cannot_run_is_a_reason(
    tmp_path: Path, make_artifact: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_artifact("tiny-random", "onnx-fp32")
    rows = measured(tmp_path)
    assert {row.reason is None for row in rows} == {False}
    assert "onnx-fp16" in str(rows[0].reason)
    make_artifact("tiny-random", "onnx-fp16")

    def refuse(name: str, artifact: Artifact) -> None:
        raise RuntimeUnavailable("ort-cuda: no CUDA provider")

    monkeypatch.setattr(bench.gpu.parity, "load_runtime", refuse)
    last = measured(tmp_path)[-3:]
    assert [(row.batch, row.reason) for row in last] == [
        (batch, "ort-cuda: no CUDA provider") for batch in (1, 4, 8)
    ]


def test_a_failure_in_the_middle_keeps_what_was_found(
    tmp_path: Path, make_artifact: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(logits: Any) -> Any:
        raise RuntimeError("CUDA error: 700")

    for name in PAIR:
        make_artifact("tiny-random", name)
    monkeypatch.setattr(
        bench.gpu.parity, "load_runtime", lambda name, artifact: PlayedRuntime(artifact, fail)
    )
    one, four, eight = measured(tmp_path)
    assert (one.finite, four.finite, eight.finite) == (True, True, None)
    assert eight.reason == "RuntimeError: CUDA error: 700"


def test_without_time_nothing_is_begun(
    tmp_path: Path, make_artifact: Callable[..., Artifact]
) -> None:
    for name in PAIR:
        make_artifact("tiny-random", name)
    with pytest.raises(UserError, match=r"^1 not measured \(no time left \(0 s of 0\)\)$"):
        run(tmp_path, Budget(0), names=("tiny",), runtimes=("ort-cpu",), batches=(1,))


def test_a_batch_is_filled_with_other_images(make_artifact: Callable[..., Artifact]) -> None:
    artifact = make_artifact("tiny-random")
    golden, _ = artifact.golden()
    assert (fill(artifact, 2) == golden[:2]).all()
    pixels = fill(artifact, 8)
    assert (pixels.shape, pixels.dtype) == ((8, *golden.shape[1:]), np.uint8)
    assert (pixels[: len(golden)] == golden).all()
    assert len(np.unique(pixels.reshape(8, -1), axis=0)) == 8


def test_no_rows_no_section() -> None:
    assert parity_section([]) is None
