"""ExecuTorch itself, where it is installed: that the fake is like it, and a small network."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_executorch
import numpy as np
import pytest
from exported import export_trained
from fake_executorch import ThreadPool

from artifact.artifact import Artifact
from artifact.runtimes.base import RuntimeUnavailable, load_runtime
from predict.classifier import Classifier

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # its own deprecations


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("executorch.runtime", reason="executorch is not installed")


def names(function: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "kwargs"]


def test_the_fake_has_its_names_and_arguments() -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import BackendRegistry, Method, Program, Runtime

    pairs = [
        (XnnpackPartitioner, fake_executorch.XnnpackPartitioner),
        (Runtime.load_program, fake_executorch.Runtime.load_program),
        (Program.load_method, fake_executorch.Program.load_method),
        (Method.execute, fake_executorch.Method.execute),
        (BackendRegistry.is_available, fake_executorch.BackendRegistry.is_available),
    ]
    assert [names(each) for each, _ in pairs] == [names(each) for _, each in pairs]
    assert Runtime.get().backend_registry.is_available("XnnpackBackend")
    for fake, theirs in (
        (fake_executorch.MethodMeta, portable_lib.MethodMeta),
        (ThreadPool, portable_lib),
    ):
        assert {name for name in vars(fake) if not name.startswith("__")} <= set(dir(theirs))


@pytest.fixture(scope="module")
def made(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """Returns the artifacts of the small trained network, by name."""
    names = ("executorch-fp32", "executorch-int8", "onnx-int8")
    return export_trained(trained, tmp_path_factory.mktemp("executorch"), names)


@pytest.mark.parametrize("name", ["executorch-fp32", "executorch-int8"])
def test_a_small_network_is_proven(made: dict[str, Artifact], name: str) -> None:
    artifact = made[name]
    assert artifact.parity is not None
    assert artifact.parity.top1_agreement >= (1.0 if name == "executorch-fp32" else 0.95)
    pixels, golden = artifact.golden()
    with load_runtime("executorch", artifact, threads=2) as runtime:
        np.testing.assert_allclose(runtime(pixels), golden, rtol=1e-4, atol=1e-4)


def test_images_are_classified_as_it_was_proven(made: dict[str, Artifact]) -> None:
    artifact = made["executorch-int8"]
    pixels, golden = artifact.golden()
    with Classifier.open(artifact.path) as classifier:  # as a server does
        assert classifier.runtime == "executorch"
        found = [each.index for each in classifier.classify(list(pixels), 1)]
    assert found == golden.argmax(axis=1).tolist()


def test_int8_takes_a_quarter_and_answers_as_the_graph_does(made: dict[str, Artifact]) -> None:
    sizes = {name: artifact.model_file.stat().st_size for name, artifact in made.items()}
    assert sizes["executorch-int8"] < 0.3 * sizes["executorch-fp32"]
    pixels, golden = made["onnx-int8"].golden()
    with load_runtime("executorch", made["executorch-int8"], threads=1) as runtime:
        logits = runtime(pixels)
    assert np.abs(logits - golden).max() <= 0.1 * np.abs(golden).max()


def test_two_numbers_of_threads_take_turns(made: dict[str, Artifact]) -> None:
    pixels, golden = made["executorch-fp32"].golden()
    runtimes = [load_runtime("executorch", made["executorch-fp32"], threads=n) for n in (2, 1)]
    for runtime in runtimes * 2:  # each frees the thread pool of the one before
        np.testing.assert_allclose(runtime(pixels), golden, rtol=1e-4, atol=1e-4)


def test_a_damaged_file_is_not_run(made: dict[str, Artifact], tmp_path: Path) -> None:
    artifact = dataclasses.replace(made["executorch-fp32"], path=tmp_path)
    artifact.model_file.write_bytes(made["executorch-fp32"].model_file.read_bytes()[:1000])
    with pytest.raises(RuntimeUnavailable, match="executorch: cannot run"):
        load_runtime("executorch", artifact)
