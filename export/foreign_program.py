"""An exported program of torch, brought to what an ONNX classifier of somebody else's is."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from torch.export import ExportedProgram

from core.errors import UserError
from export.foreign_graph import LEAST, GivenGraph, given_graph
from export.program_archive import load_program
from export.to_onnx import program_to_onnx

_SOFTMAX = (torch.ops.aten.softmax.int, torch.ops.aten._softmax.default)
_SIGMOID = (torch.ops.aten.sigmoid.default,)
_TRAINING = {  # operators, and which of their arguments says that they are training
    torch.ops.aten.batch_norm.default: 5,
    torch.ops.aten.dropout.default: 2,
    torch.ops.aten.dropout_.default: 2,
}


def read_program(path: Path) -> GivenGraph:
    """Returns the classifier in a file of ``torch.export.save``, as a graph and as the program.

    Where it ends in a Softmax or a Sigmoid, its logits are what that is given: scores are then the
    same.

    Raises:
        UserError: there is no such file, it cannot be loaded without executing what is in it, it is
            no classifier of images with one input and one output of floats, or it trains.
    """
    program = load_program(path)
    for node in program.graph.nodes:
        position = _TRAINING.get(node.target)
        if position is not None and node.args[position : position + 1] == (True,):
            raise UserError(
                f"{path}: was exported while it trained ({node.name}); call network.eval() before "
                "torch.export.export"
            )
    softmax, sigmoid = _drop_end(program, _SOFTMAX), _drop_end(program, _SIGMOID)
    given = given_graph(path, program_to_onnx(program))
    return replace(given, softmax=softmax, sigmoid=sigmoid, program=program)


def _drop_end(program: ExportedProgram, operators: Collection[object]) -> bool:
    """Makes what one of ``operators`` at the end of a program is given its output; False without.

    A Softmax is one over the classes.
    """
    (end,) = (node for node in program.graph.nodes if node.op == "output")
    specs = program.graph_signature.output_specs
    node = end.args[0][-1] if end.args[0] else None
    if not isinstance(node, torch.fx.Node) or node.target not in operators:
        return False
    if node.meta["val"].dim() != 2 or (operators is _SOFTMAX and node.args[1] not in (1, -1)):
        return False
    logits: Any = node.args[0]
    end.replace_input_with(node, logits)
    program.graph.erase_node(node)
    program.graph_module.recompile()
    specs[-1].arg.name = logits.name
    return True


class Program(nn.Module):
    """The program behind ``given``: float32 (N, 3, H, W), normalised -> logits (N, C).

    It runs as it was exported, on as many images at a time as it is bound to.
    """

    def __init__(self, given: GivenGraph) -> None:
        super().__init__()
        assert given.program is not None
        self.program = given.program.module(check_guards=False)
        self._given = given

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the logits of ``images``."""
        given = self._given
        images = images.permute(0, 2, 3, 1) if given.channels_last else images
        # Views in the program are of tensors in the order that it was traced with.
        images = images.contiguous()
        answers = self.program(images) if given.batch is None else self._by(given.batch, images)
        return answers.clamp(min=LEAST).log() if given.log else answers

    def _by(self, step: int, images: torch.Tensor) -> torch.Tensor:
        """Returns the answers to ``images``, ``step`` at a time."""
        count = len(images)
        padded = images[torch.arange(-(-count // step) * step) % count]
        return torch.cat([self.program(part) for part in padded.split(step)])[:count]

    def train(self, mode: bool = True) -> Self:
        """Leaves it in the mode that it was exported in."""
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Applies ``fn`` to its tensors, but for the order of their values in memory."""
        super()._apply(lambda tensor: fn(tensor).contiguous(), recurse)
        return self
