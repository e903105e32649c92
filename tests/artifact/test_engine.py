"""What becomes of an engine on the machine that is to run it, on fakes: no GPU is needed."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_cuda import FakeCuda, FakeDriver
from fake_machine import Machine, images
from fake_tensorrt import fake_trt

from artifact.artifact import Artifact
from artifact.fingerprint import EngineMismatch
from artifact.runtimes.base import RuntimeUnavailable, load_runtime
from artifact.runtimes.tensorrt_builder import rebuild_engine
from artifact.validation import ArtifactError
from core.errors import UserError
from core.files import sha256
from export.build import Options, build_artifacts
from export.graphs import Graphs, Proven
from export.network import load_network


@contextmanager
def stays_as_it_is(folder: Path) -> Iterator[None]:
    before = {file.name: sha256(file) for file in folder.iterdir()}
    yield
    assert {file.name: sha256(file) for file in folder.iterdir()} == before


def test_each_batch_runs_in_its_own_profile_or_the_dynamic_one(machine: Machine) -> None:
    with load_runtime(machine.runtime, machine.artifact) as runtime:
        assert runtime.name == machine.runtime
        for count in (3, 1, 1, 8, 32, 8):
            pixels = images(count)
            expected = pixels.mean(axis=(1, 2))
            np.testing.assert_allclose(runtime(pixels), expected, rtol=1e-5)
        dynamic, one, eight = machine.artifact.fingerprint.profiles
        assert machine.trt.ran_profiles == [dynamic, one, one, eight, dynamic, eight]
        switches = machine.trt.calls.count("IExecutionContext.set_optimization_profile_async")
        assert switches == 4  # only when it changes
        assert len(machine.cuda.held) == 3
        with pytest.raises(UserError, match="a batch of 33"):
            runtime(images(33))
    assert machine.cuda.held == {}
    runtime.close()  # once more does no harm


def newer_version(machine: Machine) -> str:
    before = machine.trt.__version__
    machine.trt.__version__ = f"{before}9"
    return f"built by {machine.artifact.format} {before}, here is {before}9"


def other_gpu(machine: Machine) -> str:
    machine.driver.capability = (7, 5)
    built = ", ".join(machine.artifact.fingerprint.capabilities)
    return f"built for compute capability {built}, here is 7.5 (a GPU)"


def older_driver(machine: Machine) -> str:
    machine.driver.cuda = 9020  # as text, 9 would come after 13
    return "built with a driver for CUDA 13.0, here is an older one, for 9.2"


def other_graph(machine: Machine) -> str:
    machine.artifact.graph_file.write_bytes(b"another")
    lies = hashlib.sha256(b"another").hexdigest()[:12]
    built = machine.artifact.fingerprint.onnx_sha256[:12]
    return f"built from the graph of sha256 {built}, beside it lies {lies}"


OTHER_GPU = "built for compute capability 8.6, 12.0, here is 9.0 (a GPU)"
PACKAGES = {"tensorrt": "'.[tensorrt]'", "tensorrt_rtx": "tensorrt-rtx"}
MISMATCHES = (newer_version, other_gpu, older_driver, other_graph)


@pytest.mark.parametrize("spoil", MISMATCHES)
def test_a_mismatch_is_refused_before_the_engine_is_read(
    machine: Machine, spoil: Callable[[Machine], str]
) -> None:
    wrong = spoil(machine)
    with pytest.raises(EngineMismatch) as refused:
        load_runtime(machine.runtime, machine.artifact)
    assert refused.value.wrong == wrong
    folder = machine.artifact.path
    message = str(refused.value)
    assert re.match(rf"{folder}/model\.engine .*: {re.escape(wrong)}; ", message)
    assert f"python -m export verify --rebuild {folder} " in message
    again = "python -m export run --model mobilenet_v3_large --data digits --formats "
    assert message.endswith(f"{again}{machine.artifact.name} --max-batch 32 --batches 1 8")
    assert machine.trt.calls == []


def test_every_mismatch_is_named(machine: Machine) -> None:
    wrong = [spoil(machine) for spoil in MISMATCHES]
    with pytest.raises(EngineMismatch) as refused:
        load_runtime(machine.runtime, machine.artifact)
    assert refused.value.wrong == "; ".join(wrong)


def check_it_answers(machine: Machine, artifact: Artifact) -> None:
    with load_runtime(machine.runtime, artifact) as runtime:
        pixels, logits = artifact.golden()
        np.testing.assert_allclose(runtime(pixels), logits, rtol=1e-5)


def test_a_newer_driver_is_fine(machine: Machine) -> None:
    machine.driver.cuda = 13010
    check_it_answers(machine, machine.artifact)


def test_an_engine_built_without_a_gpu_asks_for_no_driver(machine: Machine) -> None:
    fingerprint = replace(machine.artifact.fingerprint, driver=None)
    machine.driver.cuda = 12000
    check_it_answers(machine, replace(machine.artifact, fingerprint=fingerprint))


@pytest.mark.parametrize("spoil", [newer_version, older_driver])
def test_an_engine_that_does_not_fit_is_rebuilt_when_asked(
    machine: Machine, spoil: Callable[[Machine], str]
) -> None:
    spoil(machine)
    with (
        stays_as_it_is(machine.artifact.path),
        load_runtime(machine.runtime, machine.artifact, rebuild=True) as runtime,
    ):
        pixels, logits = machine.artifact.golden()
        np.testing.assert_allclose(runtime(pixels), logits, rtol=1e-5)
        runtime(images(8))
        assert machine.trt.ran_profiles == [(1, 5, 32), (8, 8, 8)]
    engine, fingerprint = rebuild_engine(machine.artifact)
    assert engine == machine.artifact.model_file.read_bytes()
    assert fingerprint.version == machine.trt.__version__
    assert fingerprint.profiles == machine.artifact.fingerprint.profiles


def test_an_engine_that_fits_is_not_rebuilt(machine: Machine) -> None:
    load_runtime(machine.runtime, machine.artifact, rebuild=True).close()
    assert "Builder.build_serialized_network" not in machine.trt.calls


def test_the_gpu_decides_what_a_rebuilt_engine_is_for(machine: Machine) -> None:
    other_gpu(machine)
    if machine.runtime == "tensorrt":
        with load_runtime(machine.runtime, machine.artifact, rebuild=True) as runtime:
            assert runtime(images(1)).shape == (1, 3)
    else:  # it does not know that generation
        with pytest.raises(RuntimeUnavailable, match=r"\b7\.5\b"):
            load_runtime(machine.runtime, machine.artifact, rebuild=True)


def test_nothing_is_rebuilt_from_a_graph_that_was_changed(machine: Machine) -> None:
    other_graph(machine)
    with pytest.raises(ArtifactError, match=r"model\.onnx: .*manifest"):
        load_runtime(machine.runtime, machine.artifact, rebuild=True)


def test_rebuild_is_for_engines(machine: Machine) -> None:
    artifact = replace(machine.artifact, format="onnx", fingerprint=None)
    with pytest.raises(UserError, match=r"rebuild .*onnx-fp16"):
        load_runtime("ort-cpu", artifact, rebuild=True)
    with pytest.raises(UserError, match=r"onnx-fp16 .*engine"):
        rebuild_engine(artifact)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("Runtime.__init__", ".*"),
        ("Runtime.deserialize_cuda_engine", r".*/model\.engine"),
        ("ICudaEngine.create_execution_context", ".*context"),
        ("IExecutionContext.set_tensor_address", ".*pixels"),
    ],
)
def test_loading_fails_with_the_words_of_tensorrt(machine: Machine, call: str, reason: str) -> None:
    machine.trt.failing.add(call)
    with pytest.raises(RuntimeUnavailable, match=f"^{machine.runtime} {reason}: {call} failed$"):
        load_runtime(machine.runtime, machine.artifact)
    assert machine.cuda.held == {}


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("set_optimization_profile_async", r"profile 2, \(8, 8, 8\)"),
        ("set_input_shape", r"\[8, 4, 4, 3\]"),
        ("execute_async_v3", "engine"),
    ],
)
def test_running_fails_with_the_words_of_tensorrt(machine: Machine, call: str, reason: str) -> None:
    failing = f"IExecutionContext.{call}"
    with load_runtime(machine.runtime, machine.artifact) as runtime:
        for _ in range(2):  # an error is not repeated in the next one
            machine.trt.failing.add(failing)
            with pytest.raises(RuntimeUnavailable, match=f"{reason}: {failing} failed$"):
                runtime(images(8))
        machine.trt.failing.clear()
        np.testing.assert_allclose(runtime(images(8)), images(8).mean(axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize("call", ["cudaStreamCreate", "cudaMalloc"])
def test_cuda_fails_while_loading(machine: Machine, call: str) -> None:
    machine.cuda.failing.add(call)
    with pytest.raises(RuntimeUnavailable, match=f"{machine.runtime}: CUDA answers "):
        load_runtime(machine.runtime, machine.artifact)
    assert machine.cuda.held == {}


@pytest.mark.parametrize("call", ["cudaMemcpyAsync", "cudaStreamSynchronize"])
def test_cuda_fails_while_running(machine: Machine, call: str) -> None:
    with load_runtime(machine.runtime, machine.artifact) as runtime:
        machine.cuda.failing.add(call)
        with pytest.raises(RuntimeUnavailable, match=f"{machine.runtime}: CUDA answers "):
            runtime(images(2))


def test_what_is_not_installed_is_named_with_its_command(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, command in (
        ("cuda.bindings.runtime", "pip install cuda-bindings"),
        (machine.artifact.format, f"pip install {PACKAGES[machine.artifact.format]}"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(RuntimeUnavailable, match=rf"{module}.*; {re.escape(command)}$"):
            load_runtime(machine.runtime, machine.artifact)


@pytest.mark.parametrize(("capability", "unverified"), [((8, 6), None), ((9, 0), OTHER_GPU)])
def test_a_new_engine_is_proven_if_it_fits_the_gpu(
    capability: tuple[int, int],
    unverified: str | None,
    artifacts: dict[str, Artifact],
    trained: Path,
    here: Path,
    driver: FakeDriver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver.capability = capability
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake_trt("tensorrt_rtx", "1.7.1.116"))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", FakeCuda())
    made = artifacts["onnx-fp16"]
    proven = Proven(made.graph_file.read_bytes(), made, made.golden()[1])
    monkeypatch.setattr(Graphs, "proven", lambda *_: proven)  # it need not be made anew
    (here / "runs").symlink_to(trained / "runs")
    network = load_network("mobilenet_v3", "digits")
    (outcome,) = build_artifacts(network, ["tensorrt_rtx-fp16"], Options(batches=(1,)))
    assert outcome.reason is None
    artifact = Artifact.load(here / "artifacts/mobilenet_v3_large-digits/tensorrt_rtx-fp16")
    assert artifact.fingerprint.profiles == ((1, 5, 32), (1, 1, 1))
    assert artifact.unverified == unverified
    assert (artifact.parity and artifact.parity.runtime) == (None if unverified else "tensorrt-rtx")
