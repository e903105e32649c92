"""A graph that may become an artifact, if it passes the gates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from artifact.records import Quantization

# Layers in float32 cost time and bytes. A graph that needs more of them than this is no fp16 or
# int8 graph any more: let it miss its limits.
MOST_FP32 = 0.5


class GraphCandidate(NamedTuple):
    """An ONNX ``ModelProto``, and what was done to it."""

    model: Any
    fp32_layers: tuple[str, ...] = ()  # names of nodes left in float32, the most sensitive first
    quantization: Quantization | None = None  # of an int8 graph


def counts(layers: int, *, above: int = 0) -> Iterator[int]:
    """Yields how many of ``layers`` to leave in float32: 1, 2, 4 and so on more than ``above``.

    The last is the most that are left, unless ``above`` is as many.
    """
    most, more = int(layers * MOST_FP32), 1
    while above + more < most:
        yield above + more
        more *= 2
    if above < most:
        yield most
