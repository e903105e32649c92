"""Computes HardSigmoid, and with it HardSwish, of an int8 graph in integers.

Runtimes without an int8 kernel for it dequantize, compute in float32 and quantize again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.node_attributes import attributes
from export.rewrites.links import Links
from export.rewrites.unread import set_nodes

_LEVEL = 127  # of the constant: the largest that both uint8 and int8 have


def add_in_integers(model: Any) -> int:
    """Replaces each int8 HardSigmoid by an int8 Add, in place; returns how many.

    HardSigmoid is alpha * x + beta, clipped to 0 and 1. The levels of x stand for alpha * x if they
    are read with alpha times their scale. Levels that stand for 0 to at most 1 clip the sum, as
    they saturate. So only ties are rounded otherwise, to an adjacent level.

    Args:
        model: ONNX ``ModelProto`` in QDQ form. A HardSigmoid whose result has levels above 1 or
            below 0, or that reads or makes float32, stays as it is.
    """
    from onnx.helper import make_node
    from onnx.numpy_helper import from_array

    graph = model.graph
    links = Links(graph)

    def clips(node: Any) -> bool:
        rounds = links.rounds(node)
        if rounds is None:
            return False
        scale, zero = (links.constants[name] for name in rounds.input[1:])
        return bool(zero.dtype == np.uint8 and zero == 0 and 255 * scale <= 1 + 1e-6)

    nodes, replaced = [], 0
    for node in graph.node:
        restores = links.restores(node) if node.op_type == "HardSigmoid" else None
        if restores is None or not clips(node):
            nodes.append(node)
            continue
        values = attributes(node)
        alpha, beta = values.get("alpha", 0.2), values.get("beta", 0.5)
        levels, scale, zero = restores.input
        constant = {
            "slope": np.float32(alpha * links.constants[scale]),
            "shift": np.array([_LEVEL], np.uint8),
            "shift_scale": np.float32(beta / _LEVEL),
            "shift_zero": np.uint8(0),
        }
        slope, *shift = (f"{node.name}/{name}" for name in constant)
        for name, value in zip((slope, *shift), constant.values(), strict=True):
            graph.initializer.append(from_array(np.array(value), name))
        terms = [f"{node.name}/{name}" for name in ("sloped", "shift_real")]
        nodes += [
            make_node("DequantizeLinear", [levels, slope, zero], terms[:1], name=terms[0]),
            make_node("DequantizeLinear", shift, terms[1:], name=terms[1]),
            make_node("Add", terms, node.output, name=node.name),
        ]
        replaced += 1
    set_nodes(graph, nodes)
    return replaced


def restore(model: Any, *, rounded: bool = False) -> None:
    """Undoes :func:`add_in_integers`, in place.

    Args:
        model: ONNX ``ModelProto`` in QDQ form.
        rounded: whether each HardSigmoid reads levels again, as in the graph before; otherwise it
            reads what they are rounded from.
    """
    from onnx.helper import make_node

    graph, links = model.graph, Links(model.graph)
    constants, makers = links.constants, links.makers
    nodes = []
    for node in graph.node:
        slope, shift = (constants.get(f"{node.name}/{name}") for name in ("slope", "shift_scale"))
        if node.op_type == "Add" and slope is not None and shift is not None:
            levels = makers[node.input[0]].input[0]
            source, scale, zero = makers[levels].input
            if rounded:
                source = f"{node.name}/restored"
                nodes.append(
                    make_node("DequantizeLinear", [levels, scale, zero], [source], name=source)
                )
            alpha, beta = float(slope / constants[scale]), float(_LEVEL * shift)
            made = make_node("HardSigmoid", [source], node.output, alpha=alpha, beta=beta)
            made.name = node.name
            nodes.append(made)
        else:
            nodes.append(node)
    set_nodes(graph, nodes)
