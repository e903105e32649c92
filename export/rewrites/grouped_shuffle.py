"""Folds channel shuffles of an int8 graph into the grouped convolutions behind them.

In a unit of ShuffleNetV1 (arXiv 1707.01083, Figure 2) a shuffle, a depthwise and a grouped
convolution follow each other. The latter can read channels in any order if it reads all of them,
the others with weights of 0. That is more to multiply and less to move: it pays where channels are
few and images large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from export.node_attributes import attributes
from export.rewrites.links import Links
from export.rewrites.unread import set_nodes

_SWAP = [0, 2, 1, 3, 4]  # of groups and the channels in them, between two Reshapes
_MOST = 200  # products with 0 for each value that is no longer moved; measured to pay up to 160
_NOTE = "shuffle"  # of a convolution: the groups and channels that were swapped, and its own groups


class Place(NamedTuple):
    """A shuffle, and the convolutions behind it."""

    split: Any  # the first Reshape
    depthwise: Any
    grouped: Any
    weights: npt.NDArray[np.int8]  # of the grouped one
    size: tuple[int, int]  # groups, and the channels in each, that are swapped


def fold_into_groups(model: Any) -> int:
    """Removes the shuffles for which that pays, in place; returns how many.

    Sums of integers are the same with products of 0 in them, so no level changes.

    Args:
        model: ONNX ``ModelProto`` in QDQ form. A shuffle that changes scales, or whose result
            anything but a depthwise and then a grouped convolution reads, stays as it is.
    """
    graph = model.graph
    links = Links(graph)
    outputs = {output.name for output in graph.output}
    made: dict[str, list[Any]] = {}  # DequantizeLinear nodes, by the name of what reads them
    folded = 0
    for node in graph.node:
        place = _place(node, links, outputs) if node.op_type == "Reshape" else None
        if place is None or _products(place) > _MOST:
            continue
        order, depthwise, grouped = _order(place.size), place.depthwise, place.grouped
        back = np.argsort(order)
        groups = attributes(grouped)["group"]
        made[depthwise.name] = [
            _in_order(graph, links, depthwise, index, back)
            for index in range(1, len(depthwise.input))
        ]
        weights = place.weights
        dense = np.zeros((len(weights), len(order), *weights.shape[2:]), weights.dtype)
        rows, columns = (np.split(each, groups) for each in (np.arange(len(dense)), order))
        for row, column in zip(rows, columns, strict=True):
            dense[np.ix_(row, column)] = weights[row]
        made[grouped.name] = [_written(graph, links, grouped, 1, {0: dense})]
        depthwise.input[0] = place.split.input[0]
        _set_groups(grouped, 1)
        _note(grouped, f"{place.size[0]} {place.size[1]} {groups}")
        folded += 1
    if folded:
        nodes = [new for node in graph.node for new in (*made.get(node.name, []), node)]
        set_nodes(graph, nodes)
        del graph.value_info[:]
    return folded


def restore(model: Any) -> int:
    """Undoes :func:`fold_into_groups`, in place, and returns how many shuffles there are again."""
    import onnx

    graph = model.graph
    links = Links(graph)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    infos = (*inferred.input, *inferred.value_info)
    shapes = {info.name: info.type.tensor_type.shape.dim for info in infos}
    made: dict[str, list[Any]] = {}
    restored = 0
    for grouped in graph.node:
        note = next((each for each in grouped.metadata_props if each.key == _NOTE), None)
        if note is None:
            continue
        *size, groups = map(int, note.value.split())
        order = _order((size[0], size[1]))
        grouped.metadata_props.remove(note)
        depthwise = links.makers[links.makers[links.makers[grouped.input[0]].input[0]].input[0]]
        made[depthwise.name] = [
            _in_order(graph, links, depthwise, index, order)
            for index in range(1, len(depthwise.input))
        ]
        dense = _levels(grouped, links)
        assert dense is not None, "it was written with such weights"
        parts = [np.split(each, groups) for each in (np.arange(len(dense)), order)]
        few = [dense[np.ix_(rows, columns)] for rows, columns in zip(*parts, strict=True)]
        made[grouped.name] = [_written(graph, links, grouped, 1, {0: np.concatenate(few)})]
        _set_groups(grouped, groups)
        before = links.makers[depthwise.input[0]]
        sides = [each.dim_value for each in shapes[before.output[0]]][2:]
        made[depthwise.name] += _shuffle(graph, depthwise, before, size, sides)
        restored += 1
    set_nodes(graph, [new for node in graph.node for new in (*made.get(node.name, []), node)])
    return restored


def _shuffle(
    graph: Any, depthwise: Any, before: Any, size: Sequence[int], sides: Sequence[int]
) -> list[Any]:
    """Returns the nodes of a shuffle between ``before`` and a convolution that then reads it."""
    from onnx.helper import make_node
    from onnx.numpy_helper import from_array

    last, nodes, steps = before.output[0], [], before.input[1:]
    for step, target in enumerate(([0, *size, *sides], None, [0, int(np.prod(size)), *sides])):
        name = f"{depthwise.name}/shuffle_{step}"
        if target is None:
            nodes.append(make_node("Transpose", [last], [name], name=name, perm=_SWAP))
        else:
            graph.initializer.append(from_array(np.array(target), f"{name}/shape"))
            nodes.append(make_node("Reshape", [last, f"{name}/shape"], [name], name=name))
        last = f"{name}/restored"
        nodes += [
            make_node("QuantizeLinear", [name, *steps], [f"{name}/levels"]),
            make_node("DequantizeLinear", [f"{name}/levels", *steps], [last]),
        ]
    depthwise.input[0] = last
    return nodes


def _place(split: Any, links: Links, outputs: set[str]) -> Place | None:
    """Returns the place of a shuffle that begins with a Reshape; None if it cannot be folded."""
    chain = [split]
    while len(chain) < 5:
        found = _next(chain[-1], links, same=len(chain) < 4)
        if found is None:
            return None
        chain.append(found)
    _, swap, merge, depthwise, grouped = chain
    if outputs & {node.output[0] for node in (split, swap, merge)}:
        return None
    kinds = [node.op_type for node in (swap, merge, depthwise, grouped)]
    if kinds != ["Transpose", "Reshape", "Conv", "Conv"] or attributes(swap)["perm"] != _SWAP:
        return None
    parts, whole = (links.constants.get(node.input[1]) for node in (split, merge))
    if parts is None or whole is None or len(parts) != 5 or len(whole) != 4:
        return None
    size = (int(parts[1]), int(parts[2]))
    channels, groups = size[0] * size[1], attributes(grouped).get("group", 1)
    first, second = (_levels(node, links) for node in (depthwise, grouped))
    if first is None or second is None or groups == 1 or whole[1] != channels:
        return None
    if first.shape[:2] != (channels, 1) or attributes(depthwise).get("group", 1) != channels:
        return None
    return Place(split, depthwise, grouped, second, size)


def _next(node: Any, links: Links, *, same: bool = True) -> Any | None:
    """Returns the node that alone reads what ``node`` makes, rounded as what it reads if ``same``.

    Its first input is what it reads; else None is returned.
    """
    rounds = links.rounds(node)
    readers = links.readers[rounds.output[0]] if rounds is not None else []
    if rounds is None or len(readers) != 1 or readers[0].op_type != "DequantizeLinear":
        return None
    if same and not _same_steps(links.restores(node), rounds, links):
        return None
    found = links.readers[readers[0].output[0]]
    if len(found) != 1 or found[0].input[0] != readers[0].output[0]:
        return None
    return found[0] if _same_steps(readers[0], rounds, links) else None


def _same_steps(one: Any | None, other: Any, links: Links) -> bool:
    """Returns whether two nodes quantize or dequantize with the same scale and zero point."""
    return one is not None and all(
        np.array_equal(links.constants[a], links.constants[b])
        for a, b in zip(one.input[1:], other.input[1:], strict=True)
    )


def _levels(conv: Any, links: Links) -> Any | None:
    """Returns the int8 weights of a convolution, where 0 stands for 0; else None."""
    restores = links.makers.get(conv.input[1])
    if restores is None or restores.op_type != "DequantizeLinear":
        return None
    levels, _, zero = (links.constants.get(name) for name in restores.input)
    return levels if levels is not None and zero is not None and not zero.any() else None


def _products(place: Place) -> float:
    """Returns how many products with 0 there would be for each value that is shuffled."""
    weights, groups = place.weights, attributes(place.grouped)["group"]
    strides = [attributes(conv).get("strides", [1]) for conv in (place.depthwise, place.grouped)]
    products = weights.size / weights.shape[1] * (groups - 1) / groups
    return float(products / np.prod([*strides[0], *strides[1]]))


def _order(size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Returns which channel of those before a shuffle each one behind it is."""
    groups, channels = size
    return np.arange(groups * channels).reshape(size).T.ravel()


def _in_order(graph: Any, links: Links, conv: Any, index: int, order: Any) -> Any:
    """Gives a convolution weights (``index`` 1) or biases (2) in another order of its results."""
    values = [links.constants[name] for name in links.makers[conv.input[index]].input]
    moved = {place: each[order] for place, each in enumerate(values) if each.ndim}
    return _written(graph, links, conv, index, moved)


def _written(
    graph: Any, links: Links, conv: Any, index: int, values: Mapping[int, npt.NDArray[Any]]
) -> Any:
    """Gives a convolution other weights or biases; returns the DequantizeLinear that makes them.

    Args:
        graph: gets the constants.
        links: of the graph.
        conv: the convolution.
        index: its input, 1 for weights and 2 for biases.
        values: new levels (0), scales (1) and zero points (2); the others stay.
    """
    from onnx.helper import make_node
    from onnx.numpy_helper import from_array

    old = links.makers[conv.input[index]]
    result = f"{conv.name}/moved_{('weights', 'biases')[index - 1]}"
    if result == old.output[0]:
        result = f"{result}_back"
    names = list(old.input)
    for place, each in values.items():
        names[place] = f"{result}/{place}"
        graph.initializer.append(from_array(np.ascontiguousarray(each), names[place]))
    conv.input[index] = result
    return make_node("DequantizeLinear", names, [result], name=result, **attributes(old))


def _set_groups(conv: Any, groups: int) -> None:
    next(each for each in conv.attribute if each.name == "group").i = groups


def _note(conv: Any, text: str) -> None:
    entry = conv.metadata_props.add()
    entry.key, entry.value = _NOTE, text
