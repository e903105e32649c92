"""A model repository for Triton, read by the schema that NVIDIA publishes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from artifact.artifact import Artifact
from core.errors import UserError
from export.triton import write_models


def test_the_repository_is_as_triton_documents_it(artifact_path: Path, tmp_path: Path) -> None:
    artifact = Artifact.load(artifact_path)
    (folder,) = write_models([artifact], tmp_path / "triton")
    assert folder == tmp_path / "triton" / "channels-colours-onnx-fp32"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {"config.pbtxt", "labels.txt", "1/model.onnx"}
    assert (folder / "1" / "model.onnx").read_bytes() == artifact.model_file.read_bytes()
    assert (folder / "labels.txt").read_text() == "red\ngreen\nblue\n"


def test_a_version_is_never_replaced(artifact_path: Path, tmp_path: Path) -> None:
    artifact = Artifact.load(artifact_path)
    for _ in range(2):
        (folder,) = write_models([artifact], tmp_path)
    versions = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert versions == ["1", "2"]


@pytest.mark.parametrize(
    ("batches", "largest", "batching"), [((1, 8), "8", True), ((1, 1), "1", False)]
)
def test_the_configuration_is_that_of_the_artifact(
    make_artifact: Callable[..., Path],
    tmp_path: Path,
    batches: tuple[int, int],
    largest: str,
    batching: bool,
) -> None:
    artifact = Artifact.load(make_artifact(batch_range=batches))
    (folder,) = write_models([artifact], tmp_path / "triton")
    text = (folder / "config.pbtxt").read_text()
    assert re.search(r"^max_batch_size: (\d+)$", text, re.MULTILINE)[1] == largest  # type: ignore[index]
    assert ("dynamic_batching" in text) == batching


def test_what_triton_cannot_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="onnx-fp32"):
        write_models([], tmp_path / "triton")
    assert not (tmp_path / "triton").exists()


def test_triton_reads_the_configuration(artifact_path: Path, tmp_path: Path) -> None:
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    text_format = pytest.importorskip("google.protobuf.text_format")
    (folder,) = write_models([Artifact.load(artifact_path)], tmp_path)
    config = text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())
    assert (config.name, config.platform) == (folder.name, "onnxruntime_onnx")
    (given,), (found,) = config.input, config.output
    assert (given.name, list(given.dims)) == ("pixels", [32, 32, 3])
    assert given.data_type == schema.TYPE_UINT8
    assert (found.name, list(found.dims)) == ("logits", [3])
    assert found.data_type == schema.TYPE_FP32
    assert (folder / found.label_filename).is_file()
    assert (folder / "1" / config.default_model_filename).is_file()
    assert config.HasField("dynamic_batching")
    assert config.version_policy.latest.num_versions == 1
