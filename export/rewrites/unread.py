"""Removes what nothing reads from a graph."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def set_nodes(graph: Any, nodes: Iterable[Any]) -> None:
    """Makes ``nodes`` those of an ONNX ``GraphProto``, without what nothing reads.

    Args:
        graph: changed in place; constants that no node reads are removed, too.
        nodes: in topological order.
    """
    read = {output.name for output in graph.output}
    kept = []
    for node in reversed(list(nodes)):
        if not read.isdisjoint(node.output):
            kept.append(node)
            read.update(node.input)
    constants = [tensor for tensor in graph.initializer if tensor.name in read]
    for field, values in ((graph.node, kept[::-1]), (graph.initializer, constants)):
        del field[:]
        field.extend(values)
