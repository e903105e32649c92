from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_cuda import FakeCuda, FakeDriver
from fake_machine import Machine, engine_artifact
from fake_tensorrt import fake_trt

from artifact.artifact import Artifact
from export.build import DEFAULT_TARGETS, Options, build_artifacts
from export.network import load_network


@pytest.fixture(scope="session")
def artifacts(trained: Path) -> dict[str, Artifact]:
    """Returns the default artifacts of the small trained network, by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        network = load_network("mobilenet_v3", "digits")
        outcomes = list(build_artifacts(network, DEFAULT_TARGETS))
        assert [outcome.target for outcome in outcomes] == list(DEFAULT_TARGETS)
        assert [outcome.reason for outcome in outcomes] == [None] * 4
        folder = Path("artifacts/mobilenet_v3_large-digits").resolve()
        return {name: Artifact.load(folder / name) for name in DEFAULT_TARGETS}


@pytest.fixture(scope="session")
def graphs(trained: Path) -> dict[str, Artifact]:
    """Returns the fp32 and fp16 artifacts of that network: they need no TensorRT to be built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        network = load_network("mobilenet_v3", "digits")
        outcomes = list(build_artifacts(network, DEFAULT_TARGETS[:2], Options(resume=True)))
        assert [outcome.reason for outcome in outcomes] == [None] * 2
        folder = Path("artifacts/mobilenet_v3_large-digits").resolve()
        return {name: Artifact.load(folder / name) for name in DEFAULT_TARGETS[:2]}


@pytest.fixture
def copied(artifacts: dict[str, Artifact], tmp_path: Path) -> Callable[[str], Path]:
    """Returns a function that returns a copy of an artifact's folder, to be spoiled."""
    import shutil

    def copy(name: str = "onnx-fp32") -> Path:
        return Path(shutil.copytree(artifacts[name].path, tmp_path / name))

    return copy


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
    artifact = engine_artifact(tmp_path / "engine", name)
    trt.calls.clear()
    return Machine(artifact, trt, cuda, driver)
