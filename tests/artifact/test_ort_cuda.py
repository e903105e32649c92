"""ONNX Runtime on a GPU, over values and sessions that live in the host's memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from tiny_artifact import tiny_artifact

from artifact.runtimes import ort_cuda
from artifact.runtimes.batch_size import best_batch_size
from artifact.runtimes.ort_cuda import OrtCudaRuntime

Array = npt.NDArray[Any]


class HostValue:
    """An ``OrtValue`` that is on the host."""

    def __init__(self, array: Array) -> None:
        self.array = array

    @classmethod
    def ortvalue_from_numpy(cls, array: Array, device: str, number: int) -> HostValue:
        return cls(array.copy())

    @classmethod
    def ortvalue_from_shape_and_type(
        cls, shape: tuple[int, ...], dtype: Any, device: str, number: int
    ) -> HostValue:
        return cls(np.full(shape, np.nan, dtype))

    def update_inplace(self, array: Array) -> None:
        assert array.shape == self.array.shape
        self.array[...] = array

    def numpy(self) -> Array:
        return self.array.copy()


class MeanSession:
    """A session of the tiny network, which notes the size of each run."""

    def __init__(self, runs: list[int]) -> None:
        self.runs = runs
        self.bound: dict[str, HostValue] = {}

    def io_binding(self) -> MeanSession:
        return self

    def bind_ortvalue_input(self, name: str, value: HostValue) -> None:
        self.bound[name] = value

    bind_ortvalue_output = bind_ortvalue_input

    def run_with_iobinding(self, binding: MeanSession, options: object) -> None:
        pixels = self.bound["pixels"].array
        self.runs.append(len(pixels))
        self.bound["logits"].array[...] = pixels.mean(axis=(1, 2))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Returns the runs of each session that is opened, which all are on the host."""
    sessions: list[list[int]] = []

    def open_session(artifact: object, options: dict[str, str]) -> MeanSession:
        assert options == {"enable_cuda_graph": "1"}
        sessions.append([])
        return MeanSession(sessions[-1])

    monkeypatch.setattr(ort_cuda, "_open", open_session)
    monkeypatch.setattr(onnxruntime, "OrtValue", HostValue)
    return sessions


def test_batches_are_filled_up_to_powers_of_two(tmp_path: Path, opened: list[list[int]]) -> None:
    runtime = OrtCudaRuntime("ort-cuda", tiny_artifact(tmp_path, 4, batch_range=(1, 6)))
    random = np.random.default_rng(0)
    for count in (1, 3, 4, 2, 6, 5, 3):
        pixels = random.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
        np.testing.assert_allclose(runtime(pixels), pixels.mean(axis=(1, 2)), rtol=1e-5)
    # Each session runs once to be captured, and never sees another size.
    assert opened == [[1, 1], [4, 4, 4, 4], [2, 2], [6, 6, 6]]


def test_to_open_a_session_is_not_part_of_what_an_image_costs(
    tmp_path: Path, opened: list[list[int]]
) -> None:
    runtime = OrtCudaRuntime("ort-cuda", tiny_artifact(tmp_path, 4, batch_range=(1, 4)))
    chosen = best_batch_size(runtime, np.zeros((1, 4, 4, 3), np.uint8), 4)
    assert chosen in (1, 2, 4)
    assert [len(runs) for runs in opened] == [4, 4, 4]  # captured, timed once, and two rounds
