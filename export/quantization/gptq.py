"""GPTQ and bias correction: rounds int8 weights, given the inputs of their layers."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from core.preprocess import Pixels
from export.quantization.probe import run_probe, with_outputs

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

BLOCK = 32  # columns whose errors are propagated together
DAMPING = 0.01  # factor on the mean variance: with few images, not all correlations are known
# Windows of a convolution that are sampled, over all images; fewer suffice for small windows.
WINDOWS, SMALL, FEW_WINDOWS = 2048, 64, 512
LARGEST = 1280  # values under a window; the covariance of more is too large to invert


class Rounding:
    """Rounds the weights and corrects the biases of int8 graphs, without changing their speed.

    Rounding to the nearest of 7 bits shifts the channel means of depthwise layers, and the shifts
    of 49 layers add up. Bias correction undoes the shift of the mean (M. Nagel et al., Data-Free
    Quantization, arXiv 1906.04721, section 4.2), and each weight compensates for the errors of
    those rounded before it (E. Frantar et al., GPTQ, arXiv 2210.17323, section 3).

    Args:
        prepared: float32 graph from :func:`export.quantization.qdq.prepare`.
        pixels: uint8 (n, H, W, 3) of real images.
        limit: largest integer weight, of 7 or 8 bits.
    """

    def __init__(self, prepared: Any, pixels: Pixels, *, limit: int) -> None:
        from onnx.numpy_helper import to_array

        self._limit = limit
        self._layers = {layer.name: layer for layer in weighted_layers(prepared)}
        self._moments = input_moments(prepared, pixels)
        self._constants = {tensor.name: to_array(tensor) for tensor in prepared.graph.initializer}
        self._rounded: dict[str, tuple[Floats, Floats, Floats]] = {}

    def apply(self, quantized: Any) -> None:
        """Rounds the int8 layers of ``quantized``, a graph from :func:`.qdq.to_int8`, in place."""
        from onnx.numpy_helper import from_array, to_array

        tensors = {tensor.name: tensor for tensor in quantized.graph.initializer}
        makers = {name: node for node in quantized.graph.node for name in node.output}
        for node in quantized.graph.node:
            sources = [makers[name] for name in node.input[1:] if name in makers]
            if node.name not in self._layers or not sources:
                continue  # without weights to round, or left in float32
            weight, scale = (tensors[name] for name in sources[0].input[:2])
            levels, correction = self._round(node.name, to_array(scale).astype(np.float64))
            weight.CopyFrom(from_array(levels.astype(np.int8), weight.name))
            exact = self._constants[self._layers[node.name].bias] + correction
            if len(sources) == 2:
                bias, step = (tensors[name] for name in sources[1].input[:2])
                bias.CopyFrom(from_array(_whole(exact / to_array(step)), bias.name))
            else:
                bias = tensors[node.input[2]]
                bias.CopyFrom(from_array(exact.astype(np.float32), bias.name))

    def _round(self, name: str, scale: Floats) -> tuple[Floats, Floats]:
        """Returns the integer weights of a layer, and the correction of its bias."""
        if name not in self._rounded or not np.array_equal(self._rounded[name][2], scale):
            layer, moments = self._layers[name], self._moments[name]
            weight = self._constants[layer.weight].astype(np.float64)
            rows = weight.reshape(layer.groups, len(weight) // layer.groups, -1)
            scales = np.broadcast_to(scale, len(weight)).reshape(*rows.shape[:2], 1)
            levels = round_rows(rows / scales, moments, self._limit)
            missing = ((rows - levels * scales) * moments.mean[:, None, :]).sum(axis=2)
            self._rounded[name] = levels.reshape(weight.shape), missing.ravel(), scale
        return self._rounded[name][:2]


def round_rows(rows: Floats, moments: Moments, limit: int) -> Floats:
    """Rounds weights column by column; later columns compensate for earlier errors.

    Args:
        rows: (g, outputs, k) weights, in units of their scale.
        moments: moments of their inputs.
        limit: largest magnitude of an integer weight.
    """
    nearest = np.clip(np.round(rows), -limit, limit)
    if moments.covariance is None:
        return nearest
    size = moments.covariance.shape[1]
    if (upper := _upper_factor(moments.covariance.copy())) is None:
        return nearest
    rest, levels = rows.astype(np.float32), np.empty_like(rows)
    for start in range(0, size, BLOCK):
        inside, after = slice(start, start + BLOCK), slice(start + BLOCK, None)
        # Column-major, as whole columns are read and written.
        block = rest[:, :, inside].transpose(2, 0, 1).copy()
        factors = upper[:, inside, inside].transpose(1, 2, 0)[..., None]
        for i, column in enumerate(block):
            nearest = np.clip(np.round(column), -limit, limit)
            levels[:, :, start + i] = nearest
            column -= nearest
            column /= factors[i, i]  # the error to propagate
            block[i + 1 :] -= factors[i, i + 1 :] * column
        rest[:, :, after] -= block.transpose(1, 2, 0) @ upper[:, inside, after]
    return levels


def _whole(steps: Floats) -> npt.NDArray[np.int32]:
    ends = np.iinfo(np.int32)
    return np.clip(np.round(steps), ends.min, ends.max).astype(np.int32)


def _upper_factor(covariance: Singles) -> Singles | None:
    """Returns (g, k, k): row i has how much each later weight compensates for an error of weight i.

    Float32 moments of values far from zero can have errors above their variance; then damping is
    increased. None if even that does not make the covariance invertible.
    """
    diagonal = np.einsum("gii->gi", covariance)  # a view
    step = DAMPING * np.abs(diagonal).mean(axis=1, keepdims=True)
    for times in (1, 9, 90):  # the damping is 1, 10, then 100 times DAMPING
        diagonal += times * step + 1e-9
        lower, failed = torch.linalg.cholesky_ex(torch.from_numpy(covariance))
        upper, fails = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not (failed | fails).any() and upper.isfinite().all():
            found: Singles = upper.numpy()
            return found
    return None


class Moments(NamedTuple):
    """Moments of the k values under a layer's window, for each of its g groups of channels."""

    mean: Floats  # (g, k)
    covariance: npt.NDArray[np.float32] | None  # (g, k, k); None where k is over LARGEST


class Layer(NamedTuple):
    """A Conv or Gemm with constant weights: its node's name, and how it reads its input."""

    name: str
    input: str
    weight: str
    bias: str
    groups: int
    kernel: tuple[int, int] | None  # None for a Gemm
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int]  # above and to the left


def weighted_layers(prepared: Any) -> list[Layer]:
    """Returns the layers of a float32 graph to which GPTQ and bias correction apply.

    They are 2D convolutions, and Gemms exported from torch's Linear, with a bias and with weights
    that are not shared: after batch norm folding, all layers except convolutions without norm.
    """
    readers = Counter(name for node in prepared.graph.node for name in node.input)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in prepared.graph.initializer}
    layers = []
    for node in prepared.graph.node:
        if len(node.input) != 3 or not set(node.input[1:]) <= shapes.keys():
            continue
        if readers[node.input[1]] > 1:
            continue
        values: dict[str, Any] = {a.name: a.i or tuple(a.ints) for a in node.attribute}
        shape = shapes[node.input[1]]
        if node.op_type == "Conv" and len(shape) == 4:
            groups, kernel = values.get("group") or 1, shape[2:]
        elif node.op_type == "Gemm" and values.get("transB"):
            groups, kernel = 1, None
        else:
            continue
        layers.append(
            Layer(
                name=node.name,
                input=node.input[0],
                weight=node.input[1],
                bias=node.input[2],
                groups=groups,
                kernel=kernel,
                strides=values.get("strides") or (1, 1),
                dilations=values.get("dilations") or (1, 1),
                pads=(values.get("pads") or (0, 0))[:2],
            )
        )
    return layers


def input_moments(prepared: Any, pixels: Pixels) -> dict[str, Moments]:
    """Returns the moments of every layer of :func:`weighted_layers`, by name.

    Args:
        prepared: float32 graph from :func:`export.quantization.qdq.prepare`.
        pixels: uint8 (n, H, W, 3) of real images.
    """
    if not (layers := weighted_layers(prepared)):
        return {}
    names = sorted({layer.input for layer in layers})
    random = np.random.default_rng(0)
    sums: dict[str, list[Any]] = {}
    for run in run_probe(with_outputs(prepared, names), pixels):
        activations = dict(zip(names, run, strict=True))
        for layer in layers:
            rows = _rows(layer, activations[layer.input], len(pixels), random)
            total = sums.setdefault(layer.name, [0, 0.0, 0.0])
            total[0] += rows.shape[1]
            total[1] += np.ones(rows.shape[1], np.float32) @ rows  # three times as fast as rows.sum
            if rows.shape[2] <= LARGEST:
                total[2] += rows.transpose(0, 2, 1) @ rows
    return {name: _moments(*total) for name, total in sums.items()}


def _rows(
    layer: Layer, values: npt.NDArray[np.float32], images: int, random: Any
) -> npt.NDArray[np.float32]:
    """Returns float32 (g, samples, k): the values under the window at random positions.

    The number of samples is this batch's share of those for all ``images``.
    """
    if layer.kernel is None:
        return values[None]
    # Positions of the top left corner, in the padded image, which is not copied.
    channels, height, width = values.shape[1:]
    size = channels // layer.groups * layer.kernel[0] * layer.kernel[1]
    count = -(-(WINDOWS if size > SMALL else FEW_WINDOWS) // images)
    corners = [
        random.integers(0, -(-side // stride), (len(values), count)) * stride - pad
        for side, pad, stride in zip((height, width), layer.pads, layer.strides, strict=True)
    ]
    image, taps = np.arange(len(values))[:, None], []
    for row in range(layer.kernel[0]):
        for column in range(layer.kernel[1]):
            y = corners[0] + row * layer.dilations[0]
            x = corners[1] + column * layer.dilations[1]
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            taken = values[image, :, np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
            taps.append(taken * inside[:, :, None])
    patches = np.stack(taps, axis=-1)  # images, positions, channels, taps
    return patches.reshape(len(values) * count, layer.groups, size).transpose(1, 0, 2)


def _moments(count: int, first: Any, second: Any) -> Moments:
    mean = first.astype(np.float64) / count
    if isinstance(second, float):
        return Moments(mean, None)
    covariance = second / count - mean[:, :, None] * mean[:, None, :]
    return Moments(mean, covariance.astype(np.float32))
