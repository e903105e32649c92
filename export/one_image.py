"""An ONNX graph in the form of converters that take one image with its channels first."""

from __future__ import annotations

from typing import Any

from core.errors import UserError
from export.rewrites.pixel_order import restore


class Unconvertible(UserError):
    """A graph that a format has no form of; the message says why."""


def for_one_image(model: Any, format: str) -> Any:
    """Returns a graph for float32 pixels (1, C, H, W), 0 to 255, of one for uint8 (N, H, W, C).

    Some formats have no uint8 tensors: what gives them pixels does what the Cast and Transpose do
    that are left out here. A Cast to float16 stays.

    Args:
        model: ONNX ``ModelProto``; its Transpose is moved to the front, in place.
        format: name of the format, for the message.

    Raises:
        Unconvertible: the graph does not begin with these.
    """
    import onnx
    from onnx import TensorProto, helper

    restore(model)
    graph = model.graph
    (pixels,), (logits,) = graph.input, graph.output
    cast = _only_reader(graph, pixels.name, "Cast", format)
    transpose = _only_reader(graph, cast.output[0], "Transpose", format)
    if list(transpose.attribute[0].ints) != [0, 3, 1, 2]:
        raise Unconvertible(f"{format}: the graph does not begin by putting the channels first")
    one = onnx.ModelProto()
    one.CopyFrom(model)
    del one.graph.node[:], one.graph.input[:], one.graph.output[:], one.graph.value_info[:]
    image, dtype = transpose.output[0], cast.attribute[0].i
    if dtype != TensorProto.FLOAT:
        image = f"{pixels.name}_float32"
        one.graph.node.append(helper.make_node("Cast", [image], transpose.output, to=dtype))
    one.graph.node.extend(node for node in graph.node if node not in (cast, transpose))
    _, height, width, channels = (size.dim_value for size in pixels.type.tensor_type.shape.dim)
    classes = logits.type.tensor_type.shape.dim[1].dim_value
    for end, name, shape in (
        (one.graph.input, image, (1, channels, height, width)),
        (one.graph.output, logits.name, (1, classes)),
    ):
        end.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    return one


def _only_reader(graph: Any, name: str, operator: str, format: str) -> Any:
    readers = [node for node in graph.node if name in node.input]
    if [node.op_type for node in readers] != [operator]:
        found = ", ".join(node.op_type for node in readers) or "nothing"
        raise Unconvertible(
            f"{format}: {name} is read by {found}, and must be by one {operator} alone"
        )
    return readers[0]
