"""What the artifacts of a network that came as a whole are compared with: that network itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from artifact.records import Reading
from core.errors import UserError, in_words
from core.image_size import Size, sides
from export.foreign_graph import GivenGraph, GraphReference, contract_graph, read_graph
from export.foreign_program import Program, read_program
from models.classifier import Classifier

_NEARLY_ONE = 1e-3  # a sum of probabilities


class Given(NamedTuple):
    """A network that came as a whole, with logits at its end."""

    graph: GivenGraph
    module: nn.Module  # uint8 (N, H, W, 3) -> float32 (N, C)
    probabilities: bool  # whether it gave these, and their logarithm was taken

    def contract(self, size: Size, mean: Sequence[float], std: Sequence[float]) -> Any:
        """Returns its ``ModelProto``, uint8 (batch, H, W, 3) to logits.

        None for a program that takes any number of images: traced as other networks of torch are,
        its graph holds less arithmetic with shapes.

        Raises:
            UserError: it is bound to a number of images.
        """
        if self.graph.program is not None and self.graph.batch is None:
            return None
        return contract_graph(self.graph, size, mean, std)


def read_given(path: Path, size: Size, reading: Reading) -> Given:
    """Returns the network in a file that was read so before; see :func:`with_logits`."""
    given = read_program(path) if reading.program else read_graph(path)
    return with_logits(given, size, reading.mean, reading.std)


def with_logits(
    given: GivenGraph, size: Size, mean: Sequence[float], std: Sequence[float]
) -> Given:
    """Returns ``given`` with what runs it and logits at its end.

    Args:
        given: of :func:`read_graph` or :func:`read_program`.
        size: of the images, in pixels.
        mean: per channel, of pixels in [0, 1].
        std: likewise.

    Raises:
        UserError: ONNX Runtime, or torch, cannot run it.
    """
    draw = torch.Generator().manual_seed(0)
    noise = torch.randint(256, (4, *sides(size), given.channels), dtype=torch.uint8, generator=draw)
    module = _module(given, mean, std)
    try:
        with torch.inference_mode():
            answers = module(noise).numpy()
    except Exception as error:  # those of ONNX Runtime and torch have no common class
        runtime = "torch" if given.program else "ONNX Runtime"
        raise UserError(f"{given.path}: {runtime} cannot run it ({in_words(error)})") from None
    sums = answers.sum(axis=1)
    if answers.min() < 0 or abs(sums - 1).max() > _NEARLY_ONE:
        return Given(given, module, False)
    given = given.with_log()
    return Given(given, _module(given, mean, std), True)


def _module(given: GivenGraph, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    if given.program is None:
        return GraphReference(given, mean, std)
    return Classifier(Program(given), mean=mean, std=std).eval()
