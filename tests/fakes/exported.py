"""The artifacts of the small trained network, made once for all tests that use them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import onnx
import pytest
from torchvision.models import MobileNetV3

from artifact.artifact import Artifact
from export import graphs as exporting
from export.build import DEFAULT_TARGETS, Options, build_artifacts
from export.network import load_network
from export.to_onnx import to_onnx
from models.classifier import Classifier

FLOATS = ("onnx-fp32", "onnx-fp16")


@pytest.fixture(scope="session", autouse=True)
def _the_trained_network_is_traced_once(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Iterator[None]:
    """Keeps the graphs of networks of its kind: torch takes seconds to trace it, for each export.

    Tests of the trace itself call :func:`export.to_onnx.to_onnx`.
    """
    folder = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        folder = folder.parent

    def once(network: Classifier, *, size: int) -> onnx.ModelProto:
        if not isinstance(network.backbone, MobileNetV3):
            return to_onnx(network, size=size)
        network.eval()  # as to_onnx does
        digest = hashlib.sha256(f"{size} {network}".encode())
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
        file = folder / f"{digest.hexdigest()}.onnx"
        if not file.exists():
            new = file.with_suffix(f".{worker_id}")
            onnx.save(to_onnx(network, size=size), new)
            new.replace(file)
        return onnx.load(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "to_onnx", once)
        yield


def export_trained(trained: Path, folder: Path, names: Sequence[str]) -> dict[str, Artifact]:
    """Returns the artifacts ``names`` of the small trained network, made in ``folder``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        patch.setattr("export.build.ARTIFACTS", folder)
        outcomes = list(build_artifacts(load_network("mobilenet_v3", "digits"), names))
    assert [outcome.reason for outcome in outcomes] == [None] * len(names)
    return {each.target: each.artifact for each in outcomes if each.artifact}


@pytest.fixture(scope="session")
def artifacts(
    trained: Path, made_once: Callable[[str, Callable[[Path], None]], Path]
) -> dict[str, Artifact]:
    """Returns the default artifacts of the small trained network, by name."""

    def export(folder: Path) -> None:
        shutil.copytree(trained / "runs", folder / "runs")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            outcomes = list(
                build_artifacts(load_network("mobilenet_v3", "digits"), DEFAULT_TARGETS)
            )
            assert [outcome.target for outcome in outcomes] == list(DEFAULT_TARGETS)
            assert [outcome.reason for outcome in outcomes if outcome.reason] == []

    made = made_once("exported", export) / "artifacts"
    shutil.copytree(made, trained / "artifacts", dirs_exist_ok=True)
    folder = trained / "artifacts" / "mobilenet_v3_large-digits"
    return {name: Artifact.load(folder / name) for name in DEFAULT_TARGETS}


@pytest.fixture(scope="session")
def graphs(trained: Path) -> dict[str, Artifact]:
    """Returns the fp32 and fp16 artifacts of that network: they need no TensorRT to be built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        network = load_network("mobilenet_v3", "digits")
        outcomes = list(build_artifacts(network, FLOATS, Options(resume=True)))
        assert [outcome.reason for outcome in outcomes] == [None] * len(FLOATS)
        folder = Path("artifacts/mobilenet_v3_large-digits").resolve()
        return {name: Artifact.load(folder / name) for name in FLOATS}


@pytest.fixture
def copied(artifacts: dict[str, Artifact], tmp_path: Path) -> Callable[[str], Path]:
    """Returns a function that returns a copy of an artifact's folder, to be spoiled."""

    def copy(name: str = "onnx-fp32") -> Path:
        return Path(shutil.copytree(artifacts[name].path, tmp_path / name))

    return copy
