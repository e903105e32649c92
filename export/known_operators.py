"""Refuses a graph with operators that a format has no form of, before any of it is converted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from typing import Any

from export.one_image import Unconvertible


def check_operators(graph: Any, handlers: Container[str], format: str, library: str) -> None:
    """Checks that each node of a graph has a handler.

    Args:
        graph: ONNX ``GraphProto``.
        handlers: operators that are converted.
        format: name of the format, for the message.
        library: name of what runs it, likewise.

    Raises:
        Unconvertible: some have none; the message names all these operators, the most frequent
            first: the first node alone may be arithmetic of sizes, of which a user knows nothing.
    """
    counts = Counter(node.op_type for node in graph.node if node.op_type not in handlers)
    if counts:
        names = ", ".join(name for name, _ in counts.most_common())
        raise Unconvertible(f"{format}: {library} has no form here of {names}")
