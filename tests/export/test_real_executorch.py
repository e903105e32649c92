"""ExecuTorch itself, where it is installed: that the fake is like it, and a small network."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_executorch
import numpy as np
import pytest
from fake_executorch import ThreadPool

from artifact.artifact import Artifact
from artifact.runtimes.base import RuntimeUnavailable, load_runtime
from export.build import build_artifacts
from export.network import load_network

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


def test_a_small_network_is_proven(in_trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (outcome,) = build_artifacts(load_network("mobilenet_v3", "digits"), ["executorch-fp32"])
    assert outcome.reason is None
    artifact = outcome.artifact
    assert isinstance(artifact, Artifact)
    assert artifact.parity is not None
    assert artifact.parity.top1_agreement == 1.0
    pixels, golden = artifact.golden()
    with load_runtime("executorch", artifact, threads=2) as runtime:
        np.testing.assert_allclose(runtime(pixels), golden, rtol=1e-4, atol=1e-4)
    artifact.model_file.write_bytes(artifact.model_file.read_bytes()[:1000])
    with pytest.raises(RuntimeUnavailable, match="executorch: cannot run"):
        load_runtime("executorch", artifact)
