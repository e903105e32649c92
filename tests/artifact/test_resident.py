"""What stays on a GPU and is timed there: on fakes, and, where there is one, on a real GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from typing import cast

import numpy as np
import onnxruntime
import pytest
from fake_machine import Machine, images

from artifact.artifact import Artifact
from artifact.golden import relative_error
from artifact.runtimes.base import RuntimeUnavailable, load_runtime, runs_on_gpu
from artifact.runtimes.ort_cuda import PROVIDER
from artifact.runtimes.resident import GpuRuntime, Resident, check_resident


def open_engine(machine: Machine) -> GpuRuntime:
    return cast(GpuRuntime, load_runtime(machine.runtime, machine.artifact))


@pytest.mark.parametrize("graph", [False, True])
def test_events_time_what_stays_on_the_gpu(machine: Machine, graph: bool) -> None:
    pixels = images(5)
    with open_engine(machine) as runtime:
        before = set(machine.cuda.held)
        with closing(runtime.resident(pixels, graph=graph)) as resident:
            machine.cuda.work_ms = 3.5
            assert resident.elapse() == pytest.approx(3.5e-3)
            np.testing.assert_allclose(resident.logits(), pixels.mean(axis=(1, 2)), rtol=1e-5)
            resident.spoil()
            assert np.isnan(resident.logits()).all()
            resident.elapse()
            check_resident(resident, "any", runtime(pixels), 1e-3)
            # It has buffers of its own: a call from the host meanwhile does it no harm.
            runtime(images(2)[::-1])
            np.testing.assert_allclose(resident.logits(), pixels.mean(axis=(1, 2)), rtol=1e-5)
        assert set(machine.cuda.held) == before
        with pytest.raises(AssertionError, match="after it was closed"):
            resident.elapse()
    assert machine.cuda.held == {}


def test_a_graph_is_captured_once_and_replayed(machine: Machine) -> None:
    with open_engine(machine) as runtime, closing(runtime.resident(images(1), graph=True)) as one:
        launches = machine.trt.calls.count("IExecutionContext.execute_async_v3")
        assert launches == 2  # once before, once to be captured
        for _ in range(4):
            one.elapse()
        assert machine.trt.calls.count("IExecutionContext.execute_async_v3") == launches
        assert len(machine.trt.ran_profiles) == 5


@pytest.mark.parametrize(
    "call", ["cudaEventCreate", "cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaMalloc"]
)
def test_what_cuda_refuses_leaves_nothing_behind(machine: Machine, call: str) -> None:
    with open_engine(machine) as runtime:
        before = set(machine.cuda.held)
        machine.cuda.failing.add(call)
        with pytest.raises(RuntimeUnavailable, match=f"{machine.runtime}: CUDA answers"):
            runtime.resident(images(2), graph=True)
        machine.cuda.failing.clear()
        assert set(machine.cuda.held) == before
        runtime.resident(images(2), graph=True).close()  # the stream is not left capturing


def test_work_on_another_stream_is_not_timed(machine: Machine) -> None:
    pixels = images(2)
    machine.cuda.work_ms = 20
    with open_engine(machine) as runtime, closing(runtime.resident(pixels)) as resident:
        expected = runtime(pixels)
        machine.cuda.astray = True
        with pytest.raises(RuntimeUnavailable, match=r"works on for \d+\.\d+ ms after the event"):
            check_resident(resident, "any", expected, 1e-3)


def skip(runtime: GpuRuntime, resident: Resident) -> None:
    resident._launch = lambda: None


def answer_otherwise(runtime: GpuRuntime, resident: Resident) -> None:
    place = runtime._place  # type: ignore[attr-defined]
    resident._address = lambda: place.logits


@pytest.mark.parametrize("spoil", [skip, answer_otherwise])
def test_wrong_answers_are_not_timed(
    machine: Machine, spoil: Callable[[GpuRuntime, Resident], None]
) -> None:
    pixels = images(2)
    with open_engine(machine) as runtime, closing(runtime.resident(pixels)) as resident:
        expected = runtime(pixels)
        resident.elapse()
        spoil(runtime, resident)
        with pytest.raises(RuntimeUnavailable, match="is not answered as what comes from the host"):
            check_resident(resident, "any", expected, 1e-3)


def test_without_cuda_bindings(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(RuntimeUnavailable, match="pip install cuda-bindings"):
        open_engine(machine)


def test_what_runs_on_a_gpu() -> None:
    assert [name for name in ("torch", "ort-cpu", "openvino") if runs_on_gpu(name)] == []
    assert runs_on_gpu("torch-cuda")
    assert runs_on_gpu("tensorrt-rtx")


@pytest.mark.gpu
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["torch-cuda", "ort-cuda"])
def test_a_gpu_answers_like_the_cpu_and_tells_its_time(
    graphs: dict[str, Artifact], name: str, precision: str, graph: bool
) -> None:
    if name == "ort-cuda" and PROVIDER not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has no CUDA provider")
    artifact = graphs[f"onnx-{precision}"]
    pixels, golden = artifact.golden()
    with load_runtime(name, artifact) as runtime:
        assert isinstance(runtime, GpuRuntime)
        logits = runtime(pixels)
        assert relative_error(logits, golden) < artifact.limits.golden_error
        with closing(runtime.resident(pixels, graph=graph)) as resident:
            check_resident(resident, name, logits, artifact.limits.golden_error)
            assert 1e-6 < resident.elapse() < 1
