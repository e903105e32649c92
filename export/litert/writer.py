"""Writes a .tflite file: tensors, constants and operators of one graph, in TFLite's schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BATCH = -1  # in a shape: any number of images; 1 where a file has to name one
Shape = tuple[int, ...]
Array = npt.NDArray[Any]

_FILE_IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3
_SIGNATURE = "serving_default"
_DESCRIPTION = "Made by Pocketnets"
# The version of an operator that first took int8 tensors; that of float32 ones is 1. It tells an
# older runtime that it cannot run the file.
_INT8_VERSION = {
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "DEQUANTIZE": 2,
    "FULLY_CONNECTED": 4,
    "LOGISTIC": 2,
    "MAXIMUM": 2,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "MINIMUM": 2,
    "MUL": 2,
    "PAD": 2,
    "QUANTIZE": 2,
    "RELU": 2,
    "RELU6": 2,
    "SPLIT": 2,
    "SPLIT_V": 2,
    "SUB": 2,
    "TRANSPOSE": 2,
}


@dataclass(frozen=True, slots=True)
class Steps:
    """How the integers of a tensor stand for real numbers: scale * (integer - zero).

    Attributes:
        scale: float32 (1,), or (n,) for the n indices of ``axis``.
        zero: of all of them.
        axis: of the tensor as it is stored.
    """

    scale: npt.NDArray[np.float32]
    zero: int = 0
    axis: int = 0

    def same(self, other: Steps | None) -> bool:
        """Returns whether integers of both stand for the same numbers."""
        return (
            other is not None
            and self.zero == other.zero
            and np.array_equal(self.scale, other.scale)
        )


class Writer:
    """A TFLite model of one graph, as it grows."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._schema: Any = schema
        self._tensors: list[Any] = []
        self._buffers: list[Any] = [schema.BufferT()]  # the first one is the empty one
        self._operators: list[Any] = []
        self._codes: dict[tuple[str, int], int] = {}

    def tensor(
        self, name: str, shape: Shape, dtype: npt.DTypeLike, steps: Steps | None = None
    ) -> int:
        """Returns the index of a new tensor that an operator will fill, or a caller."""
        tensor = self._schema.TensorT()
        tensor.name, tensor.type = name, self._type(dtype)
        tensor.shape = [1 if size == BATCH else size for size in shape]
        if BATCH in shape:
            tensor.shapeSignature = list(shape)
        tensor.hasRank = True
        if steps is not None:
            tensor.quantization = self._quantization(steps)
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def constant(self, name: str, values: Array, steps: Steps | None = None) -> int:
        """Returns the index of a new tensor that holds ``values``."""
        values = np.ascontiguousarray(values)
        index = self.tensor(name, values.shape, values.dtype, steps)
        buffer = self._schema.BufferT()
        buffer.data = values.reshape(-1).view(np.uint8)
        self._tensors[index].buffer = len(self._buffers)
        self._buffers.append(buffer)
        return index

    def operator(
        self, kind: str, inputs: Sequence[int], outputs: Sequence[int], **options: Any
    ) -> None:
        """Adds an operator that reads tensors and fills others.

        Args:
            kind: name of TFLite's builtin operator.
            inputs: indices of tensors; -1 stands for one that is left out.
            outputs: likewise.
            options: the fields of its builtin options; ``options`` names their table where it is
                not called like the operator, ``version`` is that of the operator.
        """
        schema, operator = self._schema, self._schema.OperatorT()
        table, version = options.pop("options", None), options.pop("version", None)
        key = kind, version or self._version(kind, inputs, outputs)
        operator.opcodeIndex = self._codes.setdefault(key, len(self._codes))
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if table is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            operator.builtinOptions = getattr(schema, f"{table}T")()
            for name, value in options.items():
                assert hasattr(operator.builtinOptions, name), f"{table} has no {name}"
                setattr(operator.builtinOptions, name, value)
        self._operators.append(operator)

    def rename(self, index: int, name: str) -> None:
        """Gives a tensor another name."""
        self._tensors[index].name = name

    def enum(self, table: str, name: str) -> int:
        """Returns a member of one of the schema's enumerations."""
        value: int = getattr(getattr(self._schema, table), name)
        return value

    def finish(self, source: int, result: int, metadata: Mapping[str, bytes]) -> bytes:
        """Returns the file: tensor ``source`` in, ``result`` out, and named bytes of others."""
        import flatbuffers

        schema, model = self._schema, self._schema.ModelT()
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self._tensors, self._operators
        graph.inputs, graph.outputs, graph.name = [source], [result], "main"
        model.version, model.description = _SCHEMA_VERSION, _DESCRIPTION
        model.metadata = [self._named_bytes(*each) for each in metadata.items()]
        model.subgraphs, model.buffers = [graph], self._buffers
        model.operatorCodes = [self._code(*key) for key in self._codes]
        model.signatureDefs = [self._signature(source, result)]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), file_identifier=_FILE_IDENTIFIER)
        return bytes(builder.Output())

    def _named_bytes(self, name: str, data: bytes) -> Any:
        entry, buffer = self._schema.MetadataT(), self._schema.BufferT()
        entry.name, entry.buffer = name, len(self._buffers)
        buffer.data = np.frombuffer(data, np.uint8)
        self._buffers.append(buffer)
        return entry

    def _code(self, kind: str, version: int) -> Any:
        code = self._schema.OperatorCodeT()
        code.builtinCode = self.enum("BuiltinOperator", kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)  # what older readers look at
        code.version = version
        return code

    def _signature(self, source: int, result: int) -> Any:
        signature = self._schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = _SIGNATURE, 0
        signature.inputs, signature.outputs = self._named(source), self._named(result)
        return signature

    def _named(self, index: int) -> list[Any]:
        entry = self._schema.TensorMapT()
        entry.name, entry.tensorIndex = self._tensors[index].name, index
        return [entry]

    def _version(self, kind: str, inputs: Sequence[int], outputs: Sequence[int]) -> int:
        int8 = self._schema.TensorType.INT8
        tensors = [self._tensors[index] for index in (*inputs, *outputs) if index >= 0]
        return _INT8_VERSION.get(kind, 1) if any(t.type == int8 for t in tensors) else 1

    def _type(self, dtype: npt.DTypeLike) -> int:
        return self.enum("TensorType", np.dtype(dtype).name.upper())

    def _quantization(self, steps: Steps) -> Any:
        table = self._schema.QuantizationParametersT()
        table.scale = steps.scale.astype(np.float32)
        table.zeroPoint = np.full(len(steps.scale), steps.zero, np.int64)
        table.quantizedDimension = steps.axis
        return table
