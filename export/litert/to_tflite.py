"""An ONNX graph to a .tflite file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from export.litert.converter import Converter
from export.litert.operators import HANDLERS


def to_tflite(
    model: Any, *, half: bool = False, metadata: Mapping[str, bytes] | None = None
) -> bytes:
    """Returns the .tflite file of an ONNX graph; see :class:`Converter`.

    Args:
        model: ``ModelProto``, in float32 or in QDQ form: uint8 ("batch", H, W, 3) in, float32
            ("batch", classes) out.
        half: whether weights are stored as float16.
        metadata: what else the file holds, by its name.

    Raises:
        Unconvertible: TFLite has no form of a node; the message says of which.
    """
    return Converter(model, half=half).convert(HANDLERS, metadata or {})
