"""A graph that keeps tensors in other files is refused, however it says so."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from artifact.artifact import Artifact, write_artifact
from artifact.validation import ArtifactError


def field(number: int, content: bytes, *, wide: int = 0) -> bytes:
    """Returns a protobuf field of bytes, tag and length ``wide`` bytes longer than need be."""

    def varint(value: int) -> bytes:
        groups = [value & 0x7F]
        while value := value >> 7:
            groups.append(value & 0x7F)
        groups += [0] * wide
        return bytes([group | 0x80 for group in groups[:-1]] + [groups[-1]])

    return varint(number << 3 | 2) + varint(len(content)) + content


def entry(key: str, value: str, *, wide: int = 0) -> bytes:
    """Returns one ``external_data`` entry of a tensor."""
    content = field(1, key.encode(), wide=wide) + field(2, value.encode(), wide=wide)
    return field(13, content, wide=wide)


def graph_with(artifact: Artifact, *entries: bytes) -> bytes:
    """Returns the graph of ``artifact``, its one weight kept where ``entries`` say."""
    model = onnx.load(artifact.graph_file)
    weight = TensorProto(name="scale", data_type=TensorProto.FLOAT)
    weight.data_location = TensorProto.EXTERNAL
    model.graph.ClearField("initializer")
    tensor = field(5, weight.SerializeToString() + b"".join(entries))
    # Protobuf merges messages that follow one another.
    return bytes(model.SerializeToString() + field(7, tensor))


def pack(folder: Path, artifact: Artifact, graph: bytes) -> Artifact:
    """Returns what ``artifact`` is with another graph, every digest right."""
    folder.mkdir()
    (folder / "model.onnx").write_bytes(graph)
    return write_artifact(dataclasses.replace(artifact, path=folder), *artifact.golden())


@pytest.fixture
def artifact(artifact_path: Path) -> Artifact:
    return Artifact.load(artifact_path)


@pytest.mark.parametrize("wide", [0, 1, 3])
@pytest.mark.parametrize(
    "location",
    ["scale.bin", "./scale.bin", "../../../../../../../../etc/hostname", "/etc/hostname", ""],
)
def test_external_data_is_refused(
    artifact: Artifact, tmp_path: Path, location: str, wide: int
) -> None:
    (tmp_path / "scale.bin").write_bytes(np.float32(0.05).tobytes())
    graph = graph_with(artifact, entry("location", location, wide=wide))
    (weight,) = onnx.load_from_string(graph).graph.initializer
    assert weight.external_data[0].key == "location"
    with pytest.raises(ArtifactError, match=r"model\.onnx: it holds the word 'location'"):
        pack(tmp_path / "packed", artifact, graph)


@pytest.mark.parametrize("wide", [0, 1, 3])
def test_a_runtime_would_have_read_the_file(artifact: Artifact, tmp_path: Path, wide: int) -> None:
    (tmp_path / "scale.bin").write_bytes(np.float32(0.05).tobytes())
    graph = tmp_path / "model.onnx"
    graph.write_bytes(graph_with(artifact, entry("location", "scale.bin", wide=wide)))
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    pixels, golden = artifact.golden()
    (logits,) = session.run(None, {"pixels": pixels})
    np.testing.assert_allclose(logits, golden, rtol=1e-5)


@pytest.mark.parametrize(
    "entries",
    [
        (),
        (entry("Location", "scale.bin"),),
        (entry("offset", "0"), entry("length", "4")),
        (entry("locatio", "scale.bin"), entry("n", "scale.bin")),
        (field(13, field(1, b"locatio") + field(1, b"n") + field(2, b"scale.bin")),),
        (field(13, field(1, b"locatio")) + field(13, field(1, b"n") + field(2, b"scale.bin")),),
    ],
)
def test_without_the_word_a_runtime_reads_no_file(
    artifact: Artifact, tmp_path: Path, entries: tuple[bytes, ...]
) -> None:
    (tmp_path / "scale.bin").write_bytes(np.float32(0.05).tobytes())
    graph = tmp_path / "model.onnx"
    graph.write_bytes(graph_with(artifact, *entries))
    assert b"location" not in graph.read_bytes()
    with pytest.raises(Exception, match=r"(?i)external|model format error"):
        onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
