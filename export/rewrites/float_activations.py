"""Leaves to float32 what int8 convolutions do not need rounded.

OpenVINO fuses activations and sums into the convolution before them if they read its own result,
not a rounded one. Sums before a ReLU, of ResNets and ShuffleNetV1, stay rounded: it has those in
int8 in the convolution, too, and no kernel of its own has to round them for the next. NNCF, by the
same authors, places its roundings like that.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.node_attributes import attributes
from export.quantization.qdq import DEQUANTIZE, WEIGHTED
from export.quantization.sensitivity import QUANTIZE
from export.rewrites import hard_sigmoid, pixel_order
from export.rewrites.links import Links
from export.rewrites.unread import set_nodes

_LAST = 255  # level of a uint8 activation
_IN_INT8 = (*WEIGHTED, QUANTIZE, DEQUANTIZE, "MaxPool")
_POSITIVE = ("Sigmoid", "HardSigmoid", "Relu", "Clip")  # a Relu behind them would change nothing


def round_inputs_only(model: Any) -> int:
    """Keeps only inputs and weights of convolutions and linear layers in int8, in place.

    A sum behind a convolution and before a ReLU keeps what it reads and its result rounded. So does
    a MaxPool what it reads, as the largest of rounded values is the largest, rounded. Scales and
    weights stay as they are, so there are fewer roundings. Where levels begin or end at zero, they
    stand for a Relu or Clip that the quantizer left out: that is there again.

    Args:
        model: ONNX ``ModelProto`` in QDQ form, with uint8 activations.

    Returns:
        How many other nodes no longer read what was rounded.
    """
    hard_sigmoid.restore(model)
    pixel_order.restore(model)
    links = Links(model.graph)
    sums = _sums_in_int8(model.graph, links)
    floats = _Floats(model.graph, links, sums)
    changed = 0
    for node in model.graph.node:
        if node.op_type not in _IN_INT8 and sums.isdisjoint(node.output):
            inputs = [floats.before(name) for name in node.input]
            changed += inputs != list(node.input)
            node.input[:] = inputs
    floats.write()
    pixel_order.normalise_before_transpose(model)
    return changed


def _sums_in_int8(graph: Any, links: Links) -> set[str]:
    """Returns the results of sums that OpenVINO has in int8 in the convolution before them."""

    def fits(node: Any) -> bool:
        result = links.rounds(node)
        terms = [_rounding(links, name) for name in node.input]
        if node.op_type != "Add" or result is None or not all(terms):
            return False
        makers = [links.makers.get(term.input[0]) for term in terms if term is not None]
        kinds = [maker.op_type for maker in makers if maker is not None]
        # Levels from zero are those of a ReLU, which the quantizer left out.
        return bool("Conv" in kinds and links.constants[result.input[2]] == 0)

    return {node.output[0] for node in graph.node if fits(node)}


def _rounding(links: Links, name: str) -> Any | None:
    """Returns the QuantizeLinear whose levels a tensor stands for; None if there is none."""
    restores = links.makers.get(name)
    if restores is None or restores.op_type != DEQUANTIZE:
        return None
    rounds = links.makers.get(restores.input[0])
    return rounds if rounds is not None and rounds.op_type == QUANTIZE else None


class _Floats:
    """The tensors of a graph from before they are rounded, but for ``kept`` ones."""

    def __init__(self, graph: Any, links: Links, kept: set[str]) -> None:
        self._graph, self._links, self._kept = graph, links, kept
        self._clips: dict[str, Any] = {}  # by the name of what they clip

    def before(self, name: str) -> str:
        """Returns the tensor that ``name`` is rounded from, clipped if need be; or ``name``."""
        rounds = _rounding(self._links, name)
        if rounds is None or rounds.input[0] in self._kept:
            return name
        source, *steps = rounds.input
        scale, zero = (self._links.constants[step] for step in steps)
        maker = self._links.makers.get(source)
        if maker is None or maker.op_type in _POSITIVE or 0 < zero < _LAST:
            return str(source)
        return self._clip(source, *(float(scale * (level - int(zero))) for level in (0, _LAST)))

    def _clip(self, source: str, *ends: float) -> str:
        from onnx.helper import make_node
        from onnx.numpy_helper import from_array

        result = f"{source}/clipped"
        if source not in self._clips:
            names = [f"{source}/{end}" for end in ("low", "high")]
            for name, value in zip(names, ends, strict=True):
                self._graph.initializer.append(from_array(np.array(value, np.float32), name))
            self._clips[source] = make_node("Clip", [source, *names], [result], name=result)
        return result

    def write(self) -> None:
        """Writes the nodes, each HardSwish as one."""
        nodes = []
        for node in self._graph.node:
            nodes.append(_hard_swish(node, self._links.makers))
            nodes += [self._clips[name] for name in node.output if name in self._clips]
        set_nodes(self._graph, nodes)


def _hard_swish(node: Any, makers: dict[str, Any]) -> Any:
    """Returns the HardSwish that a Mul is the last node of, or the node itself."""
    from onnx.helper import make_node

    for source, name in (node.input, node.input[::-1]) if node.op_type == "Mul" else ():
        factor = makers.get(name)
        if factor is not None and factor.op_type == "HardSigmoid" and factor.input[0] == source:
            values = attributes(factor)
            if np.allclose([values.get("alpha", 0.2), values.get("beta", 0.5)], [1 / 6, 0.5]):
                return make_node("HardSwish", [source], node.output, name=node.name)
    return node
