"""What the layers of a graph are fed: mean and covariance of the values under each weight."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from core.preprocess import Pixels
from export.quantization.probe import run_probe, with_outputs

Floats = npt.NDArray[np.float64]

# Windows of a convolution that are looked at, of all images; fewer are enough where fewer values
# are under one.
WINDOWS, SMALL, FEW_WINDOWS = 2048, 64, 512
LARGEST = 1280  # values under a window; a covariance of more is too large to be inverted


class Moments(NamedTuple):
    """Of the k values under the window of a layer, for each of its g groups of channels."""

    mean: Floats  # (g, k)
    covariance: npt.NDArray[np.float32] | None  # (g, k, k); None where k is over LARGEST


class Layer(NamedTuple):
    """A Conv or Gemm with constant weights: the name of its node and how it reads its input."""

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
    """Returns the layers of a float32 graph whose weights can be rounded with care.

    2D convolutions and Gemm as torch's Linear leaves it, both with a bias and with weights of their
    own: all that torch exports once batch norm is folded, but for a convolution without any.
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
        prepared: float32 graph from :func:`export.quantization.quantize.prepare`.
        pixels: uint8 (n, H, W, 3) of real images.
    """
    layers = weighted_layers(prepared)
    names = sorted({layer.input for layer in layers})
    random = np.random.default_rng(0)
    sums: dict[str, list[Any]] = {}
    for run in run_probe(with_outputs(prepared, names), pixels):
        activations = dict(zip(names, run, strict=True))
        for layer in layers:
            rows = _rows(layer, activations[layer.input], len(pixels), random)
            total = sums.setdefault(layer.name, [0, 0.0, 0.0])
            total[0] += rows.shape[1]
            total[1] += np.ones(rows.shape[1], np.float32) @ rows  # three times as fast as sum
            if rows.shape[2] <= LARGEST:
                total[2] += rows.transpose(0, 2, 1) @ rows
    return {name: _moments(*total) for name, total in sums.items()}


def _rows(
    layer: Layer, values: npt.NDArray[np.float32], images: int, random: Any
) -> npt.NDArray[np.float32]:
    """Returns float32 (g, samples, k): what lies under the window at random positions.

    As many as are this batch's share of those wanted of all ``images``.
    """
    if layer.kernel is None:
        return values[None]
    # Positions of the top left corner, in a padded image of which no copy is made.
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
