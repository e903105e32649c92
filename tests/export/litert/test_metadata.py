"""What an app is told of a .tflite file: read back by the schema, and by Google's own task."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from flatbuffers import encode, number_types, packer
from flatbuffers.table import Table
from tiny_artifact import tiny_artifact

from artifact.artifact import Artifact
from core.preprocess import CropMode, Preprocess
from export.build import build_artifacts
from export.image_words import resizing_in_words
from export.litert.metadata import metadata_of, with_labels
from export.network import load_network

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")


class Read:
    """A table of metadata; fields are known by their slots, as the schema numbers them."""

    def __init__(self, data: bytes, place: int | None = None) -> None:
        start = encode.Get(packer.uoffset, data, 0) if place is None else place
        self._table = Table(data, start)

    def _at(self, slot: int) -> int:
        offset = self._table.Offset(4 + 2 * slot)
        assert offset, f"nothing in slot {slot}"
        return int(offset + self._table.Pos)

    def text(self, slot: int) -> str:
        return bytes(self._table.String(self._at(slot))).decode()

    def table(self, slot: int) -> Read:
        return Read(self._table.Bytes, self._table.Indirect(self._at(slot)))

    def tables(self, slot: int) -> list[Read]:
        offset = self._table.Offset(4 + 2 * slot)
        start, count = self._table.Vector(offset), self._table.VectorLen(offset)
        places = [self._table.Indirect(start + 4 * index) for index in range(count)]
        return [Read(self._table.Bytes, place) for place in places]

    def kind(self, slot: int) -> int:
        return int(self._table.Get(number_types.Uint8Flags, self._at(slot)))

    def number(self, slot: int) -> int:
        return int(self._table.Get(number_types.Uint32Flags, self._at(slot)))

    def floats(self, slot: int) -> list[float]:
        offset = self._table.Offset(4 + 2 * slot)
        found = self._table.GetVectorAsNumpy(number_types.Float32Flags, offset)
        return [float(each) for each in found]


@pytest.fixture(scope="module")
def artifact(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Returns the small trained network for LiteRT."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        patch.setattr("export.build.ARTIFACTS", tmp_path_factory.mktemp("phone"))
        network = load_network("mobilenet_v3", "digits")
        (outcome,) = build_artifacts(network, ["litert-fp32"])
    assert outcome.artifact is not None, outcome.reason
    return outcome.artifact


def test_a_file_says_that_it_is_a_classifier_and_of_what(artifact: Artifact) -> None:
    file = artifact.model_file.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(file, 0)
    (entry,) = model.metadata
    assert entry.name == b"TFLITE_METADATA"
    data = bytes(model.buffers[entry.buffer].data)
    assert data == metadata_of(artifact)
    assert data[4:8] == b"M001"
    root = Read(data)
    assert root.text(0) == "mobilenet_v3_large-digits"
    (graph,) = root.tables(3)
    (source,), (result,) = graph.tables(2), graph.tables(3)
    assert (source.text(0), result.text(0)) == ("pixels", "logits")
    content = source.table(3)
    assert content.kind(0) == 2  # an image
    assert content.table(1).kind(0) == 1  # RGB
    size = content.table(1).table(1)
    assert (size.number(0), size.number(1)) == (32, 32)
    (unit,) = source.tables(4)
    assert unit.kind(0) == 1  # NormalizationOptions, which leave a byte as it is
    assert (unit.table(1).floats(0), unit.table(1).floats(1)) == ([0.0], [1.0])
    assert (source.table(5).floats(0), source.table(5).floats(1)) == ([255.0], [0.0])
    (labels,) = result.tables(6)
    assert (labels.text(0), labels.kind(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        assert archive.read("labels.txt").decode().split("\n") == list(artifact.labels)


def test_size_and_colours_are_those_of_the_images() -> None:
    preprocess = Preprocess(resize=24, crop=(16, 24), channels=1)
    root = Read(metadata_of(tiny_artifact(Path(), 8, preprocess=preprocess)))
    assert "images of 16x24 pixels" in root.text(1)
    assert resizing_in_words(preprocess) in root.text(1)
    (source,) = root.tables(3)[0].tables(2)
    assert source.text(1).startswith("L, 0 to 255 (N, H, W, 1)")
    image = source.table(3).table(1)
    assert image.kind(0) == 2  # grey
    assert [image.table(1).number(slot) for slot in (0, 1)] == [24, 16]  # width, height


@pytest.mark.parametrize(
    ("mode", "how"),
    [
        ("center", "keeping its proportions, until it covers 73x110 pixels"),
        ("squash", "changing its proportions, to 73x110 pixels"),
        ("border", "keeping its proportions, until it fits into 73x110 pixels"),
    ],
)
def test_resizing_is_said_by_its_mode(mode: CropMode, how: str) -> None:
    words = resizing_in_words(Preprocess(resize=(73, 110), crop=(64, 96), crop_mode=mode))
    assert how in words
    assert "middle 64x96 pixels are taken (sizes are height x width)." in words
    assert words.endswith("What it does not fill is 0 0 0.") == (mode == "border")


def test_a_crop_that_is_not_filled_is_said() -> None:
    words = resizing_in_words(Preprocess(resize=20, crop=24, fill=(1, 2, 3)))
    assert words.endswith("What it does not fill is 1 2 3.")


def test_labels_keep_their_lines_and_the_bytes_are_the_same_each_time() -> None:
    labels = ("cat", "grey\nwolf", "", "Bär")
    made = with_labels(b"model" * 100, labels)
    assert made == with_labels(b"model" * 100, labels)
    assert made.startswith(b"model" * 100)
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        assert archive.read("labels.txt").decode() == "cat\ngrey wolf\n\nBär"


def test_mediapipe_answers_the_same(artifact: Artifact) -> None:
    mediapipe = pytest.importorskip("mediapipe", reason="pip install mediapipe to run it")
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageClassifierOptions(
        base_options=BaseOptions(model_asset_path=str(artifact.model_file)), max_results=1
    )
    pixels, golden = artifact.golden()
    with vision.ImageClassifier.create_from_options(options) as classifier:
        for image, logits in zip(pixels, golden, strict=True):
            data = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image.copy())
            (answer,) = classifier.classify(data).classifications
            assert answer.head_name == "logits"
            (best,) = answer.categories
            assert best.category_name == artifact.labels[int(np.argmax(logits))]
            assert best.score == pytest.approx(float(logits.max()), rel=1e-3)
