"""What the tensors of a graph connect."""

from __future__ import annotations

from collections import defaultdict
from typing import Any


class Links:
    """Constants, makers and readers of tensors.

    Attributes:
        constants: values of the graph's constants, by name.
        makers: the node that makes a tensor, by its name.
        readers: nodes that read a tensor, by its name.
    """

    def __init__(self, graph: Any) -> None:
        from onnx.numpy_helper import to_array

        self.constants = {tensor.name: to_array(tensor) for tensor in graph.initializer}
        self.makers = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[Any]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.readers[name].append(node)

    def restores(self, node: Any) -> Any | None:
        """Returns the DequantizeLinear that makes a node's first input; None if none does."""
        maker = self.makers.get(node.input[0])
        return maker if maker is not None and maker.op_type == "DequantizeLinear" else None

    def rounds(self, node: Any) -> Any | None:
        """Returns the QuantizeLinear that alone reads a node's first output; None if none does."""
        readers = self.readers[node.output[0]]
        return readers[0] if [each.op_type for each in readers] == ["QuantizeLinear"] else None
