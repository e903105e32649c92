"""ExecuTorch artifacts on the road that all artifacts take.

make setup does not install ExecuTorch, which brings eighteen packages: these tests run a fake, and
those in test_real.py the library itself where it is installed.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import fake_executorch
import numpy as np
import pytest
from fake_executorch import ThreadPool

from artifact.artifact import Artifact, write_artifact
from artifact.golden import check_golden
from artifact.records import Reading
from artifact.runtimes.base import RuntimeUnavailable, list_runtimes, load_runtime
from core.errors import UserError
from core.files import sha256
from export.build import Outcome, build_artifacts
from export.executorch import build as to_executorch
from export.network import load_network

NAME = "executorch-fp32"


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPool]:
    """Returns the threads of a fake ExecuTorch, which is there as long as this file is tested."""
    threads = ThreadPool()
    version = importlib.metadata.version
    with pytest.MonkeyPatch.context() as patch:
        for name, module in fake_executorch.modules(threads).items():
            patch.setitem(sys.modules, name, module)
        patch.setattr(
            "export.build.version", lambda name: "1.5.1" if name == "executorch" else version(name)
        )
        yield threads


def exported(folder: Path) -> Outcome:
    network = load_network("mobilenet_v3", "digits")
    network = dataclasses.replace(network, held_out=network.held_out[:64])  # run one by one
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.build.ARTIFACTS", folder)
        (outcome,) = build_artifacts(network, [NAME])
    return outcome


@pytest.fixture(scope="module")
def made(trained: Path, threads: ThreadPool, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Returns the artifact of the small trained network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        outcome = exported(tmp_path_factory.mktemp("executorch"))
    assert outcome.reason is None
    assert outcome.artifact is not None
    return outcome.artifact


def test_is_proven_like_the_others(made: Artifact) -> None:
    artifact = Artifact.load(made.path)
    assert artifact.parity is not None
    assert (artifact.parity.runtime, artifact.parity.batches) == ("executorch", (1, 2, 8, 32))
    assert artifact.parity.top1_agreement == 1.0
    assert artifact.metrics is not None
    assert artifact.versions["executorch"] == "1.5.1"
    assert {"model.pte", "model.onnx"} < set(artifact.sha256s)
    assert list_runtimes("executorch") == ["executorch"]


def test_int8_is_made_of_the_graph_alone(
    artifacts: dict[str, Artifact], threads: ThreadPool, tmp_path: Path
) -> None:
    source = artifacts["onnx-int8"]
    draft = dataclasses.replace(source, path=tmp_path, format="executorch")
    made = to_executorch.build(draft, source.graph_file.read_bytes(), ())
    pixels, golden = source.golden()
    with load_runtime("executorch", made, threads=1) as runtime:
        logits = runtime(pixels)
    assert (logits.argmax(axis=1) == golden.argmax(axis=1)).all()
    assert np.abs(logits - golden).max() <= 0.1 * np.abs(golden).max()


def test_a_batch_runs_one_by_one_in_the_threads_asked_for(
    made: Artifact, threads: ThreadPool
) -> None:
    pixels, golden = made.golden()
    with load_runtime("executorch", made, threads=3) as runtime:
        check_golden(runtime, made)
        before = threads.resets
        np.testing.assert_allclose(runtime(pixels[:5]), golden[:5], rtol=1e-4, atol=1e-4)
        assert (threads.count, threads.resets) == (3, before)
        flipped = pixels[:, :, ::-1]
        np.testing.assert_array_equal(runtime(flipped), runtime(flipped.copy()))
        with load_runtime("executorch", made, threads=1) as other:
            other(pixels[:1])
            assert threads.count == 1
        runtime(pixels[:1])
        assert threads.count == 3
        with pytest.raises(UserError, match="a batch of 33: executorch-fp32 takes 1 to 32"):
            runtime(np.zeros((33, *pixels.shape[1:]), np.uint8))


def test_a_file_that_is_not_what_the_manifest_says_is_not_run(
    made: Artifact, tmp_path: Path
) -> None:
    import torch

    folder = Path(shutil.copytree(made.path, tmp_path / NAME))
    artifact = Artifact.load(folder)
    module = torch.nn.Flatten()
    for data in (made.model_file.read_bytes()[:1000], None):
        if data is None:
            torch.export.save(
                torch.export.export(module, (torch.zeros(1, 4),)), artifact.model_file
            )
        else:
            artifact.model_file.write_bytes(data)
        artifact = write_artifact(artifact, *artifact.golden())  # as its maker could
        with pytest.raises(RuntimeUnavailable, match=rf"cannot run {artifact.model_file} \("):
            load_runtime("executorch", artifact)


def test_without_the_package_or_xnnpack_it_says_what_to_install(
    made: Artifact, in_trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_executorch.BackendRegistry, "names", ())
    with pytest.raises(RuntimeUnavailable, match="has no XnnpackBackend"):
        load_runtime("executorch", made)
    monkeypatch.setitem(sys.modules, "executorch.runtime", None)
    outcome = exported(tmp_path)
    assert not outcome.failed
    assert outcome.reason is not None
    assert outcome.reason.endswith("; pip install '.[executorch]'")


def test_what_torch_does_not_run_is_refused(
    made: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = tmp_path / "theirs.onnx"
    graph.write_bytes(b"graph")
    third = (0.5,) * 3
    reading = Reading(entry="", mean=third, std=third, assumed=(), flags=(), graph=True)
    source = dataclasses.replace(
        made.source, checkpoint=str(graph), sha256=sha256(graph), reading=reading
    )
    draft = dataclasses.replace(made, path=tmp_path, source=source)
    with pytest.raises(UserError, match="is an ONNX graph, which torch does not run"):
        to_executorch.build(draft, b"", ())
    assert not draft.model_file.exists()
