"""int8 weights that are rounded for what their layer is fed, instead of each to the nearest."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from core.preprocess import Pixels
from export.quantization.moments import Floats, Moments, input_moments, weighted_layers

Singles = npt.NDArray[np.float32]

BLOCK = 32  # columns whose errors are handed on together
DAMPING = 0.01  # of the mean variance; images are too few to know every correlation


class Rounding:
    """Rounds the weights and corrects the biases of int8 graphs; costs nothing when they run.

    Nearest rounding to 7 bits moves the mean of a depthwise layer's channels, and 49 layers add
    up. Here the bias takes back what rounding does to the mean (M. Nagel et al., Data-Free
    Quantization, arXiv 1906.04721, section 4.2), and every weight makes up for the error of those
    rounded before it (E. Frantar et al., GPTQ, arXiv 2210.17323, section 3).

    Args:
        prepared: float32 graph from :func:`export.quantization.quantize.prepare`.
        pixels: uint8 (n, H, W, 3) of real images.
        limit: the largest weight, of 7 bits or of 8.
    """

    def __init__(self, prepared: Any, pixels: Pixels, *, limit: int) -> None:
        from onnx.numpy_helper import to_array

        self._limit = limit
        self._layers = {layer.name: layer for layer in weighted_layers(prepared)}
        self._moments = input_moments(prepared, pixels)
        self._constants = {tensor.name: to_array(tensor) for tensor in prepared.graph.initializer}
        self._rounded: dict[str, tuple[Floats, Floats, Floats]] = {}

    def apply(self, quantized: Any) -> None:
        """Rounds the int8 layers of ``quantized``, a graph from :func:`.quantize.to_int8`."""
        from onnx.numpy_helper import from_array, to_array

        tensors = {tensor.name: tensor for tensor in quantized.graph.initializer}
        makers = {name: node for node in quantized.graph.node for name in node.output}
        for node in quantized.graph.node:
            sources = [makers[name] for name in node.input[1:] if name in makers]
            if node.name not in self._layers or not sources:
                continue  # no weights to round, or a layer left in float32
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
        """Returns the levels of a layer's weights, and what is to be added to its bias."""
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
    """Returns whole numbers for which the outputs of a layer vary least from exact.

    Args:
        rows: (g, outputs, k) weights, in units of their scale.
        moments: of what they are multiplied with.
        limit: none is below its negative or above it.
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
        # Columns first: each is read and written as a whole.
        block = rest[:, :, inside].transpose(2, 0, 1).copy()
        factors = upper[:, inside, inside].transpose(1, 2, 0)[..., None]
        for i, column in enumerate(block):
            nearest = np.clip(np.round(column), -limit, limit)
            levels[:, :, start + i] = nearest
            column -= nearest
            column /= factors[i, i]  # the error that is handed on
            block[i + 1 :] -= factors[i, i + 1 :] * column
        rest[:, :, after] -= block.transpose(1, 2, 0) @ upper[:, inside, after]
    return levels


def _whole(steps: Floats) -> npt.NDArray[np.int32]:
    ends = np.iinfo(np.int32)
    return np.clip(np.round(steps), ends.min, ends.max).astype(np.int32)


def _upper_factor(covariance: Singles) -> Singles | None:
    """Returns (g, k, k): row i says how much each later weight makes up for an error of weight i.

    Float32 moments of values far from zero can be off by more than their variance; more damping
    makes up for that. None if even that is not enough: the values tell nothing.
    """
    diagonal = np.einsum("gii->gi", covariance)  # a view
    step = DAMPING * np.abs(diagonal).mean(axis=1, keepdims=True)
    for times in (1, 9, 90):  # 1, 10 and 100 times in all
        diagonal += times * step + 1e-9
        lower, failed = torch.linalg.cholesky_ex(torch.from_numpy(covariance))
        upper, fails = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not (failed | fails).any() and upper.isfinite().all():
            found: Singles = upper.numpy()
            return found
    return None
