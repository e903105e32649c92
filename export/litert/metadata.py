"""The standard metadata of a .tflite file, by which apps and tools know it for a classifier.

A table of TensorFlow Lite's metadata schema (its file identifier is M001) lies in the file as a
buffer, and the labels are appended to it as a ZIP archive, which leaves the model readable. The
package that writes both, tflite-support, is no longer kept, and MediaPipe, which reads them, brings
OpenCV and matplotlib; so the tables are written here, by the slots of their fields.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence

from flatbuffers import Builder

from artifact.artifact import Artifact
from core.image_size import in_full
from export.image_words import resizing_in_words

NAME = "TFLITE_METADATA"  # of the buffer
LABELS = "labels.txt"
_IDENTIFIER = b"M001"
_PARSER = "1.0.0"  # reads all that stands here
_AXIS_LABELS = 2  # members of the schema's enumerations and unions
_COLOURS = {1: 2, 3: 1}  # grey and RGB by the number of channels; others are unknown to it
_FEATURE, _IMAGE = 1, 2
_NORMALISATION = 1


def metadata_of(artifact: Artifact) -> bytes:
    """Returns the metadata of a classifier: what its input and output are, and their names."""
    builder = Builder(1024)
    preprocess = artifact.preprocess
    source, result = _image(builder, artifact), _scores(builder, artifact)
    graph = _table(
        builder,
        {
            2: _vector(builder, [source]),
            3: _vector(builder, [result]),
        },
    )
    described = (
        f"Classifies images of {in_full(preprocess.crop)} pixels into "
        f"{len(artifact.labels)} classes ({artifact.source.origin}). "
        f"{resizing_in_words(preprocess)}"
    )
    root = _table(
        builder,
        {
            0: builder.CreateString(f"{artifact.model}-{artifact.data}"),
            1: builder.CreateString(described),
            2: builder.CreateString(artifact.versions.get("pocketnets", "")),
            3: _vector(builder, [graph]),
            4: builder.CreateString("Pocketnets"),
            7: builder.CreateString(_PARSER),
        },
    )
    builder.Finish(root, file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def with_labels(model: bytes, labels: Sequence[str]) -> bytes:
    """Returns a .tflite file with its labels appended, a line each, as the metadata names them.

    The bytes are the same each time. What stands for a new line in a label becomes a space.
    """
    file = io.BytesIO(model)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        lines = "\n".join(" ".join(label.splitlines()) for label in labels)
        archive.writestr(zipfile.ZipInfo(LABELS), lines)
    return file.getvalue()


def _image(builder: Builder, artifact: Artifact) -> int:
    """Returns the table of the input: an image, whose bytes are taken as they are."""
    preprocess = artifact.preprocess
    height, width = preprocess.size
    size = _table(builder, {}, numbers={0: width, 1: height})
    image = _table(builder, {1: size}, kinds={0: _COLOURS.get(preprocess.channels, 0)})
    content = _table(builder, {1: image}, kinds={0: _IMAGE})
    options = _table(builder, {0: _floats(builder, [0.0]), 1: _floats(builder, [1.0])})
    unit = _table(builder, {1: options}, kinds={0: _NORMALISATION})
    stats = _table(builder, {0: _floats(builder, [255.0]), 1: _floats(builder, [0.0])})
    described = (
        f"{preprocess.mode}, 0 to 255 (N, H, W, {preprocess.channels}); normalised inside the "
        "network."
    )
    return _table(
        builder,
        {
            0: builder.CreateString(artifact.input.name),
            1: builder.CreateString(described),
            3: content,
            4: _vector(builder, [unit]),
            5: stats,
        },
    )


def _scores(builder: Builder, artifact: Artifact) -> int:
    """Returns the table of the output: a number for each label."""
    feature = _table(builder, {})
    content = _table(builder, {1: feature}, kinds={0: _FEATURE})
    labels = _table(
        builder,
        {0: builder.CreateString(LABELS), 1: builder.CreateString("Classes, a line each.")},
        kinds={2: _AXIS_LABELS},
    )
    described = "A logit for each class; softmax makes probabilities of them."
    if artifact.task == "multi":
        described = "A logit for each label; sigmoid makes a probability of each by itself."
    return _table(
        builder,
        {
            0: builder.CreateString(artifact.output.name),
            1: builder.CreateString(described),
            3: content,
            6: _vector(builder, [labels]),
        },
    )


def _table(
    builder: Builder,
    parts: Mapping[int, int],
    *,
    kinds: Mapping[int, int] | None = None,
    numbers: Mapping[int, int] | None = None,
) -> int:
    """Returns a table of what was built before it.

    Args:
        builder: holds it.
        parts: slot of a field to the tables, strings and vectors that it refers to.
        kinds: to members of enumerations and unions.
        numbers: to numbers of 32 bits.
    """
    kinds, numbers = kinds or {}, numbers or {}
    builder.StartObject(max([-1, *parts, *kinds, *numbers]) + 1)
    for slot, part in parts.items():
        builder.PrependUOffsetTRelativeSlot(slot, part, 0)
    for slot, number in numbers.items():
        builder.PrependUint32Slot(slot, number, 0)
    for slot, kind in kinds.items():
        builder.PrependUint8Slot(slot, kind, 0)
    table: int = builder.EndObject()
    return table


def _vector(builder: Builder, tables: Sequence[int]) -> int:
    builder.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        builder.PrependUOffsetTRelative(table)
    vector: int = builder.EndVector()
    return vector


def _floats(builder: Builder, values: Sequence[float]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependFloat32(value)
    vector: int = builder.EndVector()
    return vector
