"""Makes the batch dimension dynamic in a graph that was traced with a fixed batch size.

Tracing with a dynamic dimension takes torch twice as long, as it computes symbolic shapes at every
step, and splits operators into shape arithmetic. A graph traced with :data:`EXAMPLE` images has no
shape arithmetic, and every size that is a multiple of that prime is a multiple of the batch size.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import UserError, first_line

BATCH = "batch"
EXAMPLE = 997  # batch size for tracing: a prime that is no size of a layer
_SOURCES = ("Shape", "Size")  # operators that return sizes
_SHAPE_OF = {"Reshape": 1, "Expand": 1, "Tile": 1, "Resize": 3}  # which input is a shape

Vector = npt.NDArray[Any]


def free_batch(model: Any) -> Any:
    """Returns a graph traced with :data:`EXAMPLE` images, changed to accept any batch size.

    Raises:
        UserError: the graph depends on the batch size in a way that cannot be changed.
    """
    import onnx

    graph = model.graph
    _Freeing(graph).free()
    del graph.value_info[:]
    for end in (*graph.input, *graph.output):
        end.type.tensor_type.shape.dim[0].dim_param = BATCH
    try:
        return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        raise bound_to_batch(first_line(error)) from None


def bound_to_batch(why: str) -> UserError:
    """Returns the error for a graph that is correct for only one batch size."""
    return UserError(
        f"the exported graph is bound to the number of images it was traced with ({why}): "
        "a layer depends on the batch size; write it with fixed sizes"
    )


def keeps_images_apart(model: Any) -> bool:
    """Returns whether the batch is the first dimension of every value of a graph.

    Then every Reshape keeps images separate, and a graph that is correct for one image is correct
    for any batch size. If images are merged with channels, heads or windows, it must be run to
    find out.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    shapes = (
        info.type.tensor_type.shape.dim
        for info in (*graph.value_info, *graph.output)
        if info.name not in constants
    )
    return not shape_nodes(model) and all(dims and dims[0].dim_param == BATCH for dims in shapes)


def shape_nodes(model: Any) -> int:
    """Returns how many nodes of an ONNX ``ModelProto`` compute only shapes."""
    constants = {tensor.name for tensor in model.graph.initializer}
    sizes: set[str] = set()
    count = 0
    for node in model.graph.node:
        computed = [name for name in node.input if name and name not in constants]
        if node.op_type in _SOURCES or (computed and sizes.issuperset(computed)):
            sizes.update(node.output)
            count += 1
    return count


class _Freeing:
    """Rewrites, in place, all nodes and constants that contain the batch size."""

    def __init__(self, graph: Any) -> None:
        from onnx.numpy_helper import to_array

        self._graph = graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        # Constants as traced, and as rewritten: nodes may share one that must now differ.
        self._traced = {
            name: to_array(tensor)
            for name, tensor in self._constants.items()
            if len(tensor.dims) == 1 and tensor.data_type == tensor.INT64
        }
        self._rewritten: dict[str, Vector] = {}
        for node in graph.node:
            for position, name in enumerate(node.input):
                if name in self._traced and _SHAPE_OF.get(node.op_type) != position:
                    self._rewritten[name] = self._traced[name]  # not changed for this node
        self._shapes = {
            info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim]
            for info in (*graph.input, *graph.value_info, *graph.output)
        } | {tensor.name: list(tensor.dims) for tensor in graph.initializer}
        self._added: set[str] = set()  # outputs of nodes added here
        self._same: dict[str, str] = {}  # values that equal another value

    def free(self) -> None:
        """Rewrites every node that depends on the batch size."""
        nodes = list(self._graph.node)
        del self._graph.node[:]
        for node in nodes:
            self._graph.node.extend(self._freed(node))
        used = {name for node in self._graph.node for name in node.input}
        for tensor in [each for each in self._graph.initializer if each.name not in used]:
            self._graph.initializer.remove(tensor)

    def _freed(self, node: Any) -> Iterator[Any]:
        """Yields the nodes that replace ``node``."""
        for position, name in enumerate(node.input):
            node.input[position] = self._same.get(name, name)
            if name in self._constants and (once := self._once(name)) is not None:
                node.input[position] = yield from self._repeated(name, once)
        position = _SHAPE_OF.get(node.op_type, len(node.input))
        shape = self._traced.get(node.input[position]) if position < len(node.input) else None
        if shape is None:
            yield node
        elif node.op_type == "Reshape":
            yield self._freed_reshape(node, shape.copy())
        elif node.op_type == "Resize":
            yield self._freed_resize(node, shape)
        else:
            yield from self._freed_expand(node, shape.copy())

    def _freed_reshape(self, node: Any, shape: Vector) -> Any:
        free = np.flatnonzero(_counts_images(shape))
        if not len(free):
            return node
        kept = shape[0] == EXAMPLE and self._shapes[node.input[0]][:1] == [EXAMPLE]
        if -1 in shape and not kept:
            shape = np.array(self._shapes[node.output[0]])
        if len(free) > 1 and not kept:
            raise bound_to_batch(f"{node.name} makes a shape of {shape.tolist()}")
        # 0 copies the input's size, unless an attribute says otherwise; -1 is the remaining size.
        shape[free[0]] = 0 if kept else -1
        node.input[1] = self._constant(node.input[1], shape)
        del node.attribute[:]
        return node

    def _freed_resize(self, node: Any, after: Vector) -> Any:
        """Gives a Resize scales instead of sizes, as the sizes include the batch size."""
        factors = []
        for old, new in zip(self._shapes[node.input[0]], after.tolist(), strict=True):
            factor = np.float32(new / old)
            if int(old * float(factor)) != new:  # Resize rounds down: 7 * (13 / 7) is 12.999999
                factor = np.nextafter(factor, np.float32(np.inf))
            factors.append(factor)
        node.input[2] = self._constant(f"{node.name}_factors", np.array(factors, dtype=np.float32))
        del node.input[3:]
        return node

    def _freed_expand(self, node: Any, after: Vector) -> Iterator[Any]:
        before = self._shapes[node.input[0]]
        if node.op_type == "Tile":
            after *= before
        if before == after.tolist():  # torch also expands to the same shape
            self._same[node.output[0]] = node.input[0]
            return
        after[np.array([1] * (len(after) - len(before)) + before) == after] = 1  # as it is
        if _counts_images(after).any():
            shape = yield from self._run_time_shape(after)
        else:
            shape = self._constant(node.input[1], after)
        yield _node("Expand", [node.input[0], shape], node.output[0], node.name)

    def _once(self, name: str) -> Vector | None:
        """Returns one image's part of a constant that is equal for all images; None if not."""
        from onnx.numpy_helper import to_array

        tensor = self._constants[name]
        if len(tensor.dims) < 2 or tensor.dims[0] != EXAMPLE:
            return None
        value = to_array(tensor)
        return value[:1] if (value == value[:1]).all() else None  # otherwise it is a weight

    def _repeated(self, name: str, once: Vector) -> Generator[Any, None, str]:
        """Yields nodes that repeat ``once`` for each image; returns the name of the result."""
        repeated = f"{name}_repeated"
        if repeated not in self._added:
            self._added.add(repeated)
            self._shapes[repeated] = [EXAMPLE, *once.shape[1:]]
            value = self._constant(f"{name}_once", once)
            shape = yield from self._run_time_shape(np.array([EXAMPLE] + [1] * (once.ndim - 1)))
            yield _node("Expand", [value, shape], repeated, repeated)
        return repeated

    def _run_time_shape(self, shape: Vector) -> Generator[Any, None, str]:
        """Yields nodes that compute ``shape`` from the batch size; returns the result's name."""
        batch, *rest = shape.tolist()
        if batch != EXAMPLE or _counts_images(shape[1:]).any():
            raise bound_to_batch(f"a value is repeated to a shape of {shape.tolist()}")
        if BATCH not in self._added:
            self._added.add(BATCH)
            yield _node("Shape", [self._graph.input[0].name], BATCH, BATCH, start=0, end=1)
        name = "_".join(map(str, (BATCH, *rest)))
        if name not in self._added:
            self._added.add(name)
            sizes = self._constant(f"{name}_rest", np.array(rest, dtype=np.int64))
            yield _node("Concat", [BATCH, sizes], name, name, axis=0)
        return name

    def _constant(self, name: str, value: Vector) -> str:
        """Returns the name of constant ``value``: ``name``, unless that now has another value."""
        from onnx.numpy_helper import from_array

        while name in self._rewritten and not np.array_equal(self._rewritten[name], value):
            name += "_"
        if name not in self._constants:
            self._constants[name] = self._graph.initializer.add()
        if name not in self._rewritten:
            self._rewritten[name] = value
            self._constants[name].CopyFrom(from_array(value, name))
        return name


def _counts_images(shape: Vector) -> Vector:
    """Returns for each size of a traced shape whether it is a multiple of the batch size."""
    counts: Vector = (shape != 0) & (shape % EXAMPLE == 0)
    return counts


def _node(op: str, inputs: list[str], output: str, name: str, **attributes: Any) -> Any:
    from onnx.helper import make_node

    return make_node(op, inputs, [output], name=name, **attributes)
