"""A graph that may become an artifact, if it passes the gates."""

from __future__ import annotations

from typing import Any, NamedTuple

from export.records import Quantization


class Candidate(NamedTuple):
    """An ONNX ``ModelProto``, and what was done to it."""

    model: Any
    fp32_layers: tuple[str, ...] = ()  # names of nodes left in float32, the most sensitive first
    quantization: Quantization | None = None  # of an int8 graph
