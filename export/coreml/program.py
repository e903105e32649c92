"""An ONNX graph, in float16 or in QDQ form, to a program in MIL, Core ML's intermediate language.

Each operator becomes MIL's of the same meaning, with the very types, int8 weights and scales that
the graph has, so that what was chosen in :mod:`export.quantization` holds in Core ML, too.

Why not coremltools' own frontend: it takes networks of torch alone, was tested up to torch 2.7,
knows nothing of those scales, and with NumPy 2.4 and later it fails on some networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from export.known_operators import check_operators
from export.one_image import Unconvertible

Array = npt.NDArray[Any]
Handler = Callable[["Translator", Any], Any]


@dataclass(frozen=True, slots=True)
class Weight:
    """An int8 constant of the graph: ``levels`` times ``scale``, one for each index of ``axis``."""

    levels: Array
    scale: Array
    axis: int

    @property
    def real(self) -> Array:
        """Returns the float32 numbers that it stands for."""
        shape = [1] * self.levels.ndim
        shape[self.axis] = -1
        real: Array = self.levels.astype(np.float32) * self.scale.reshape(shape)
        return real

    @property
    def T(self) -> Weight:  # noqa: N802 - as NumPy's
        """Returns a matrix with its axes exchanged."""
        return Weight(self.levels.T, self.scale, 1 - self.axis)


class Translator:
    """Translates the nodes of one graph; handlers in :mod:`export.coreml.operators` do it.

    Args:
        model: ONNX ``ModelProto``, for one image with its channels first; see
            :mod:`export.one_image`.
        half: whether what the graph computes in float32 is computed in float16.

    Attributes:
        mb: coremltools' builder of MIL, whose functions add operators to a program.
    """

    def __init__(self, model: Any, *, half: bool) -> None:
        import onnx
        from coremltools.converters.mil import Builder
        from onnx.numpy_helper import to_array

        self.mb = Builder
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        self._graph = graph
        self._half = half
        self._shapes = {
            info.name: tuple(size.dim_value for size in info.type.tensor_type.shape.dim)
            for info in (*graph.input, *graph.value_info, *graph.output)
        }
        # Constants as arrays or weights, all else as variables of the program.
        self._values: dict[str, Any] = {each.name: to_array(each) for each in graph.initializer}

    def translate(self, image: Any, handlers: Mapping[str, Handler]) -> Any:
        """Returns the float32 logits (1, classes) of an image; called inside a program.

        Args:
            image: variable, float32 (1, C, H, W).
            handlers: what translates a node, by its operator.

        Raises:
            Unconvertible: an operator or a form of it that has no handler.
        """
        check_operators(self._graph, handlers, "coreml", "Core ML")
        (pixels,), (logits,) = self._graph.input, self._graph.output
        self._values[pixels.name] = self.mb.cast(x=image, dtype=self.float_type("fp32"))
        for node in self._graph.node:
            made = handlers[node.op_type](self, node)
            results = made if isinstance(made, (list, tuple)) else [made]
            self._values |= zip(node.output, results, strict=True)
        return self.mb.cast(x=self._values[logits.name], dtype="fp32", name=logits.name)

    def refusal(self, node: Any, why: str) -> Unconvertible:
        """Returns the error that says why a node cannot be translated."""
        return Unconvertible(f"coreml: {node.op_type} {node.name or node.output[0]}: {why}")

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of a tensor.

        Raises:
            Unconvertible: it is known only as the graph runs.
        """
        shape = self._shapes.get(name)
        if not shape or 0 in shape:
            raise Unconvertible(f"coreml: the sizes of {name} are known only as the graph runs")
        return shape

    def value(self, node: Any, index: int) -> Any:
        """Returns an input of a node for MIL: a variable, or an array."""
        value = self._values[node.input[index]]
        return self.stored(node, value) if self.is_constant(node, index) else value

    def is_constant(self, node: Any, index: int) -> bool:
        """Returns whether an input of a node is a constant."""
        return isinstance(self._values[node.input[index]], (np.ndarray, Weight))

    def constant(self, node: Any, index: int) -> Array | Weight:
        """Returns an input of a node that must be a constant.

        Raises:
            Unconvertible: it is computed.
        """
        if self.is_constant(node, index):
            constant: Array | Weight = self._values[node.input[index]]
            return constant
        raise self.refusal(node, f"its {node.input[index]} is computed, and must be a constant")

    def array(self, node: Any, index: int) -> Array:
        """Returns the numbers of an input that must be a constant, in the program's type.

        Raises:
            Unconvertible: it is computed.
        """
        constant = self.constant(node, index)
        real = constant.real if isinstance(constant, Weight) else constant
        stored: Array = self.stored(node, real)
        return stored

    def optional(self, node: Any, **places: int) -> dict[str, Array]:
        """Returns the optional constants that a node has: MIL's names to their places."""
        given = {name: index for name, index in places.items() if len(node.input) > index}
        return {name: self.array(node, index) for name, index in given.items() if node.input[index]}

    def stored(self, node: Any, constant: Array | Weight) -> Any:
        """Returns a constant for MIL, in the type that the program computes in.

        Raises:
            Unconvertible: float16 cannot hold it.
        """
        if isinstance(constant, Weight):
            return self.mb.constexpr_affine_dequantize(
                quantized_data=constant.levels,
                zero_point=np.int8(0),
                scale=self.stored(node, constant.scale),
                axis=np.int32(constant.axis),
            )
        if not self._half or constant.dtype != np.float32:
            return constant
        with np.errstate(over="ignore"):
            half = constant.astype(np.float16)
        if not np.isfinite(half).all():
            largest = np.abs(constant).max()
            raise self.refusal(node, f"one of its constants, {largest:.3g}, overflows float16")
        return half

    def float_type(self, dtype: str) -> str:
        """Returns the type that the program computes in where the graph does in ``dtype``."""
        return "fp16" if self._half else dtype
