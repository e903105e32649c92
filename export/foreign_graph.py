"""An ONNX classifier of somebody else's, brought to the contract: uint8 pixels in, logits out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram

from core.errors import UserError, first_line
from core.files import check_is_file
from core.image_size import Size, sides
from export.free_batch import BATCH, keeps_images_apart
from export.to_onnx import INPUT, OPSET, OUTPUT

_OLDEST = 13  # opset: from here on the quantizer takes every operator per channel
_QUANTIZED = re.compile("Quantize|QLinear|Integer$|QGemm|QAttention")  # ONNX's, ONNX Runtime's
_VIEWS = (
    "Identity",
    "Reshape",
    "Flatten",
    "Squeeze",
)  # what may follow a Softmax and change nothing
FLOAT = "give the network in float, as it was before: int8 is made here, through its gates"
_CHANNELS = (3, 1, 4, 2)  # RGB, grey, RGBA, grey and alpha
LEAST = 1e-30  # of probabilities
_ADDED = "pocketnets/"  # what the names of added nodes begin with


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenGraph:
    """An ONNX classifier as it was given, but for a Softmax or a Sigmoid at its end.

    Attributes:
        path: of its file.
        model: the ``ModelProto``: float images to logits.
        channels_last: whether images are (N, H, W, C) and not (N, C, H, W).
        sides: height and width of the images; None for one that is free.
        channels: of the images, 1 to 4.
        batch: the number of images it is for; None where it is free.
        classes: that it tells apart.
        softmax: whether a Softmax at its end was left out.
        sigmoid: whether a Sigmoid was: an image has any number of labels.
        log: whether the logarithm of its answers was put behind it.
        program: what the graph was made from; None where it was given itself.
    """

    path: Path
    model: Any
    channels_last: bool
    sides: tuple[int | None, int | None]
    channels: int
    batch: int | None
    classes: int
    softmax: bool = False
    sigmoid: bool = False
    log: bool = False
    program: ExportedProgram | None = None

    def with_log(self) -> GivenGraph:
        """Returns the graph with the logarithm of its probabilities as its logits.

        Their softmax is those probabilities again. None is below ``LEAST``, whose logarithm is
        finite.
        """
        import onnx
        from onnx import helper

        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        end = model.graph.output[0]
        least = np.array(LEAST, np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(least, f"{_ADDED}least"))
        model.graph.node.extend(
            [
                helper.make_node("Max", [end.name, f"{_ADDED}least"], [f"{_ADDED}bounded"]),
                helper.make_node("Log", [f"{_ADDED}bounded"], [f"{_ADDED}log"]),
            ]
        )
        end.name = f"{_ADDED}log"
        return replace(self, model=model, log=True)


def read_graph(path: Path) -> GivenGraph:
    """Returns the classifier in an ONNX file.

    Where it ends in a Softmax or a Sigmoid, its logits are what that is given: scores are then the
    same.

    Raises:
        UserError: there is no such file, or it is no classifier of images with one input and
            one output of floats.
    """
    import onnx

    check_is_file(path)
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
        model = onnx.shape_inference.infer_shapes(_converted(model))
    except Exception as error:  # protobuf's, onnx's and those of a file beside it
        raise UserError(f"{path}: not a whole ONNX graph ({first_line(error)})") from None
    softmax, sigmoid = (_without_end(model.graph, end) for end in ("Softmax", "Sigmoid"))
    return replace(given_graph(path, model), softmax=softmax, sigmoid=sigmoid)


def given_graph(path: Path, model: Any) -> GivenGraph:
    """Returns the classifier that ``model``, from the file at ``path``, is.

    Raises:
        UserError: it is none of images with one input and one output of floats, or quantized.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [end for end in model.graph.input if end.name not in constants]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        ends = ", ".join(end.name for end in (*inputs, *model.graph.output))
        raise UserError(
            f"{path}: a classifier has one input and one output, and this graph has "
            f"{len(inputs)} and {len(model.graph.output)} ({ends})"
        )
    batch, *image = _dims(path, inputs[0], 4, "images")
    channels_last = image[0] not in _CHANNELS
    channels = image[2 if channels_last else 0]
    if channels not in _CHANNELS:
        raise UserError(
            f"{path}: {inputs[0].name} is {[batch, *image]}; images are [batch, channels, height, "
            "width] or [batch, height, width, channels], of 1 to 4 channels"
        )
    height, width = image[:2] if channels_last else image[1:]
    if (last := _last(model.graph)) is not None and last.op_type == "Sigmoid":
        raise UserError(
            f"{path}: ends in a Sigmoid of what is no logit; give the network without it, with "
            "--multi-label"
        )
    operators = {node.op_type for node in model.graph.node}
    if quantized := sorted(name for name in operators if _QUANTIZED.search(name)):
        raise UserError(f"{path}: is quantized ({', '.join(quantized)}); {FLOAT}")
    _, classes = _dims(path, model.graph.output[0], 2, "logits")
    if classes is None:
        raise UserError(f"{path}: {model.graph.output[0].name} does not say how many classes")
    return GivenGraph(
        path=path,
        model=model,
        channels_last=channels_last,
        sides=(height, width),
        channels=channels,
        batch=batch,
        classes=classes,
    )


def _converted(model: Any) -> Any:
    """Returns ``model`` in our opset, or as it is where it is newer."""
    import onnx

    (opset,) = (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return onnx.version_converter.convert_version(model, OPSET) if opset < OPSET else model


def _dims(path: Path, end: Any, rank: int, what: str) -> list[int | None]:
    """Returns the dimensions of an end of a graph, None for a free one."""
    import onnx

    tensor = end.type.tensor_type
    if tensor.elem_type != onnx.TensorProto.FLOAT or len(tensor.shape.dim) != rank:
        kind = onnx.helper.tensor_dtype_to_string(tensor.elem_type).rpartition(".")[2]
        raise UserError(
            f"{path}: {end.name} is {kind} of {len(tensor.shape.dim)} dimensions; {what} are FLOAT "
            f"of {rank}"
        )
    return [dim.dim_value or None for dim in tensor.shape.dim]


def _last(graph: Any) -> Any:
    """Returns the node that makes the output of a graph, behind what only reshapes; or None."""
    makers = {name: node for node in graph.node for name in node.output}
    node = makers.get(graph.output[0].name)
    while node is not None and node.op_type in _VIEWS:
        node = makers.get(node.input[0])
    return node


def _without_end(graph: Any, operator: str) -> bool:
    """Makes what the ``operator`` at the end of a graph is given its output; False without one."""
    end, node = graph.output[0], _last(graph)
    if node is None or node.op_type != operator:
        return False
    for reader in graph.node:
        for position, read in enumerate(reader.input):
            if read == node.output[0]:
                reader.input[position] = node.input[0]
    if end.name == node.output[0]:
        end.name = node.input[0]
        known = {info.name: info for info in graph.value_info}
        if end.name in known:
            graph.value_info.remove(known[end.name])
    graph.node.remove(node)
    return True


def contract_graph(
    given: GivenGraph, size: Size, mean: Sequence[float], std: Sequence[float]
) -> Any:
    """Returns the ``ModelProto`` of ``given`` from uint8 (batch, H, W, 3) to logits.

    Its first layer normalises as :class:`models.classifier.Classifier` does; batch norm is folded.

    Raises:
        UserError: it is bound to a number of images.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.ModelProto()
    model.CopyFrom(given.model)
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    (images,) = (end for end in graph.input if end.name not in constants)
    deviation = np.asarray(std, np.float32)
    scale = (1 / (255 * deviation)).reshape(1, -1, 1, 1)
    shift = (-np.asarray(mean, np.float32) / deviation).reshape(1, -1, 1, 1)
    normalized = f"{_ADDED}normalized" if given.channels_last else images.name
    front = [
        helper.make_node("Cast", [INPUT], [f"{_ADDED}floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", [f"{_ADDED}floats"], [f"{_ADDED}images"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", [f"{_ADDED}images", f"{_ADDED}scale"], [f"{_ADDED}scaled"]),
        helper.make_node("Add", [f"{_ADDED}scaled", f"{_ADDED}shift"], [normalized]),
    ]
    if given.channels_last:
        front.append(helper.make_node("Transpose", [normalized], [images.name], perm=[0, 2, 3, 1]))
    graph.initializer.append(onnx.numpy_helper.from_array(scale, f"{_ADDED}scale"))
    graph.initializer.append(onnx.numpy_helper.from_array(shift, f"{_ADDED}shift"))
    rest = list(graph.node)
    del graph.node[:], graph.input[:], graph.value_info[:]
    graph.node.extend([*front, *rest])
    if graph.output[0].name != OUTPUT:
        graph.node.append(helper.make_node("Identity", [graph.output[0].name], [OUTPUT]))
    del graph.output[:]
    if given.batch is not None:
        _free_reshapes(graph, given.batch)
    float_, byte = TensorProto.FLOAT, TensorProto.UINT8
    graph.input.append(
        helper.make_tensor_value_info(INPUT, byte, [BATCH, *sides(size), given.channels])
    )
    graph.output.append(helper.make_tensor_value_info(OUTPUT, float_, [BATCH, given.classes]))
    try:
        model = onnx.shape_inference.infer_shapes(_optimized(model), strict_mode=True)
    except Exception as error:  # ONNX Runtime's and onnx's have no common class
        raise _bound(given, first_line(error)) from None
    if given.batch is not None and not keeps_images_apart(model):
        raise _bound(given, "a layer mixes its images")
    onnx.checker.check_model(model, full_check=True)
    return model


def _bound(given: GivenGraph, why: str) -> UserError:
    return UserError(
        f"{given.path}: its batch cannot be freed ({why}); export it with a free first dimension "
        "(dynamic_shapes of torch's exporters)"
    )


def _free_reshapes(graph: Any, batch: int) -> None:
    """Lets each Reshape to ``batch`` images keep as many as there are."""
    from onnx.numpy_helper import from_array, to_array

    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] in constants:
            shape = to_array(constants[node.input[1]]).copy()
            if len(shape) and shape[0] == batch:
                shape[0] = 0  # as many as there are, unless an attribute says otherwise
                name = f"{_ADDED}{node.input[1]}"
                if name not in constants:
                    constants[name] = graph.initializer.add()
                    constants[name].CopyFrom(from_array(shape, name))
                node.input[1] = name
                del node.attribute[:]


def _optimized(model: Any) -> Any:
    """Returns ``model`` with constants and batch norms folded, in operators of ONNX alone."""
    from tempfile import TemporaryDirectory

    import onnx
    import onnxruntime

    with TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return onnx.load(options.optimized_model_filepath)


class GraphReference(nn.Module):
    """A given graph behind the call of a torch network: uint8 (N, H, W, 3) -> float32 (N, C).

    It runs as it was given, in ONNX Runtime, on images that NumPy normalises.
    """

    def __init__(self, given: GivenGraph, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        from onnxruntime import InferenceSession

        content = given.model.SerializeToString()
        self._session = InferenceSession(content, providers=["CPUExecutionProvider"])
        self._given = given
        self._mean, self._std = np.asarray(mean, np.float32), np.asarray(std, np.float32)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Returns the logits of ``pixels``."""
        images = (pixels.numpy().astype(np.float32) / 255 - self._mean) / self._std
        if not self._given.channels_last:
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        count, step = len(images), self._given.batch or len(images)
        padded = np.take(images, range(-(-count // step) * step), axis=0, mode="wrap")
        name = self._session.get_inputs()[0].name
        logits = [
            self._session.run(None, {name: padded[start : start + step]})[0]
            for start in range(0, len(padded), step)
        ]
        return torch.from_numpy(np.concatenate(logits)[:count])


def count_constants(model: Any) -> int:
    """Returns the elements of all float constants of a graph that have a dimension."""
    import onnx

    return sum(
        int(np.prod(tensor.dims))
        for tensor in model.graph.initializer
        if tensor.dims and tensor.data_type == onnx.TensorProto.FLOAT
    )
