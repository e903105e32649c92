"""A model repository for Triton Inference Server: a folder for each artifact, with config.pbtxt.

The layout and the fields are those of Triton's documentation (model_repository.md,
model_configuration.md). ``tests/export/test_triton.py`` reads the configuration by the schema that
NVIDIA publishes in tritonclient.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from artifact.artifact import Artifact
from core.errors import UserError
from core.files import staged, write_whole

# Triton's platform and the file's name in it, by format. Its TensorRT is that of the full package.
_PLATFORMS = {
    "onnx": ("onnxruntime_onnx", "model.onnx"),
    "tensorrt": ("tensorrt_plan", "model.plan"),
}
_LABELS = "labels.txt"


def can_serve(artifact: Artifact) -> bool:
    """Returns whether Triton has a backend for the format that takes the file as it is."""
    return artifact.format in _PLATFORMS


def name_of(artifact: Artifact) -> str:
    """Returns the name of the model in Triton: network, data, format and precision."""
    return f"{artifact.model}-{artifact.data}-{artifact.name}".replace("/", "_")


def write_models(artifacts: Sequence[Artifact], repository: Path) -> list[Path]:
    """Writes those of ``artifacts`` that Triton can run to ``repository``; returns their folders.

    Raises:
        UserError: it can run none of them.
    """
    able = [artifact for artifact in artifacts if can_serve(artifact)]
    if not able:
        raise UserError(
            f"nothing was added to {repository}: Triton runs {' and '.join(_PLATFORMS)}, and none "
            "was made; pass --formats onnx-fp32"
        )
    return [write_model(artifact, repository) for artifact in able]


def write_model(artifact: Artifact, repository: Path) -> Path:
    """Writes a folder of ``repository`` with the model as version 1 or the next; returns it.

    A version is never replaced, as Triton may be serving it: the next number gets the new file, and
    the configuration and labels are replaced.
    """
    folder = repository / name_of(artifact)
    numbers = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    version = folder / str(max(numbers, default=0) + 1)
    _, file = _PLATFORMS[artifact.format]
    # Triton may look at any moment: what describes the file is there before it.
    write_whole(folder / _LABELS, "".join(f"{label}\n" for label in artifact.labels).encode())
    write_whole(folder / "config.pbtxt", config_of(artifact).encode())
    with staged(version) as new:
        shutil.copyfile(artifact.model_file, new / file)
        (new / file).chmod(0o644)
    return folder


def config_of(artifact: Artifact) -> str:
    """Returns the configuration of the model in protobuf's text format.

    The interface is that of the artifact: uint8 NHWC pixels in, float32 logits out. Triton batches
    requests up to the largest batch of the graph.
    """
    platform, file = _PLATFORMS[artifact.format]
    height, width, channels = artifact.preprocess.shape
    least, most = artifact.batch_range
    batches = most if least == 1 else 0
    text = json.dumps  # protobuf's text format quotes as JSON does
    lines = [
        f"name: {text(name_of(artifact))}",
        f"platform: {text(platform)}",
        f"default_model_filename: {text(file)}",
        f"max_batch_size: {batches}",
        "input {",
        '  name: "pixels"',
        "  data_type: TYPE_UINT8",
        f"  dims: {[height, width, channels]}",
        "}",
        "output {",
        '  name: "logits"',
        "  data_type: TYPE_FP32",
        f"  dims: {[len(artifact.labels)]}",
        f"  label_filename: {text(_LABELS)}",
        "}",
        "version_policy { latest { num_versions: 1 } }",
    ]
    if batches > 1:
        lines.append("dynamic_batching { }")
    return "\n".join([*lines, ""])
