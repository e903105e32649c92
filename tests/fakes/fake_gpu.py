"""A machine with a GPU, and one without: the driver, CUDA and TensorRT are fakes."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_cuda import FakeCuda, FakeDriver
from fake_machine import Machine, engine_artifact
from fake_tensorrt import fake_trt

from artifact.runtimes import resident


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    """Returns the driver of a GPU that this machine now seems to have."""
    fake, load = FakeDriver(), ctypes.CDLL

    def pretend(name: str, *arguments: Any, **options: Any) -> Any:
        return fake if name == "libcuda.so.1" else load(name, *arguments, **options)

    monkeypatch.setattr(ctypes, "CDLL", pretend)
    return fake


@pytest.fixture
def no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this machine one without a GPU."""
    load = ctypes.CDLL

    def pretend(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "libcuda.so.1":
            raise OSError(f"{name}: cannot open shared object file")
        return load(name, *arguments, **options)

    monkeypatch.setattr(ctypes, "CDLL", pretend)


@pytest.fixture(
    params=[("tensorrt_rtx", "1.7.1.116"), ("tensorrt", "11.4.0.106"), ("tensorrt", "10.16.1.11")],
    ids="-".join,
)
def machine(
    request: pytest.FixtureRequest,
    driver: FakeDriver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Machine:
    """Returns a machine with a fake GPU and each fake TensorRT, and an engine that it built."""
    name, version = request.param
    trt, cuda = fake_trt(name, version), FakeCuda()
    trt.put = cuda.put
    monkeypatch.setitem(sys.modules, name, trt)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    monkeypatch.setattr(resident, "perf_counter", cuda.perf_counter)
    artifact = engine_artifact(tmp_path / "engine", name)
    trt.calls.clear()
    return Machine(artifact, trt, cuda, driver)
