"""Variants of a block or a network, and their preparation for each runtime."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from artifact.runtimes.base import RUNTIMES
from bench.experiment import this_machine
from bench.measure.timing import Call
from core.errors import UserError
from core.lazy import resolve
from export.to_onnx import to_graph
from models.cost import layer_costs

Platform = Literal["CPU", "GPU"]
Floats = npt.NDArray[np.float32]

BATCH: dict[Platform, int] = {"CPU": 1, "GPU": 8}  # as in arXiv 1807.11164, Figure 1
AGREEMENT = 1e-3  # largest difference between runtimes, relative to the largest value
_SEED = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A variant of a block or a network.

    Attributes:
        group: variants of a group are compared; the first one is the baseline.
        name: unique name in the group.
        build: returns the network with random weights, float32 (N, C, H, W) -> (N, ...).
        shape: C, H and W of the input.
        paper: time in the paper, relative to the baseline; None if not printed.
        printed: the paper's figures, as text.
    """

    group: str
    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    paper: float | None = None
    printed: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedVariant:
    """A variant that is ready to be measured.

    Attributes:
        variant: the variant.
        macs: multiply-accumulates per image, of the exported graph.
        bytes: bytes of the float32 input, weights and output of all layers, per call.
        calls: runtime to a call on the same batch; their outputs have been compared.
    """

    variant: Variant
    macs: int
    bytes: int
    calls: dict[str, Call]


def platforms() -> list[Platform]:
    """Returns the platforms of this machine."""
    return ["CPU", "GPU"] if torch.cuda.is_available() else ["CPU"]


def bare_runtimes(platform: Platform) -> list[str]:
    """Returns the runtimes on ``platform`` that can run networks without an artifact."""
    gpu = platform == "GPU"
    return [name for name, spec in RUNTIMES.items() if spec.bare and spec.gpu == gpu]


def runtimes(platform: Platform) -> list[str]:
    """Returns the installed ones of :func:`bare_runtimes`, torch first."""
    versions = this_machine().versions
    return [name for name in bare_runtimes(platform) if RUNTIMES.find(name).library in versions]


def prepare(variant: Variant, names: Sequence[str], *, batch: int, threads: int) -> TimedVariant:
    """Exports ``variant``, counts its costs, and loads it into the runtimes ``names``.

    Raises:
        UserError: the output of a runtime differs from that of the first one.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = variant.build().eval()
        settle(network, torch.randn(1, *variant.shape))
        example = torch.randn(batch, *variant.shape)
    graph = to_graph(network, variant.shape, torch.float32)
    inputs, model = example.numpy(), graph.SerializeToString()
    calls: dict[str, Call] = {}
    expected: Floats | None = None
    for name in names:
        bare = RUNTIMES.find(name).bare
        assert bare is not None, f"{name} runs artifacts only"
        call: Call = resolve(bare)(network, model, inputs, threads)
        outputs = _host(call())
        expected = outputs if expected is None else expected
        error = float(np.abs(outputs - expected).max() / np.abs(expected).max())
        if not error < AGREEMENT:  # also true for NaN
            raise UserError(
                f"{variant.group}, {variant.name}: {name} computes something else than {names[0]} "
                f"(relative error {error:.1e}, allowed {AGREEMENT:g}); update {name}"
            )
        calls[name] = call
    layers = layer_costs(graph)
    return TimedVariant(
        variant=variant,
        macs=sum(layer.macs for layer in layers),
        bytes=sum(layer.bytes_moved(batch=batch) for layer in layers),
        calls=calls,
    )


def digest(variant: Variant) -> str:
    """Returns 12 hex digits that identify the names, input shape and layers of ``variant``."""
    with torch.device("meta"):
        layers = repr(variant.build())
    text = f"{variant.group}/{variant.name}/{variant.shape}/{layers}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@torch.no_grad()
def settle(network: nn.Module, example: torch.Tensor) -> None:
    """Scales random weights so that a convolution's output has standard deviation 1 without bias.

    Otherwise activations vanish or explode with depth, and denormal numbers slow a CPU down. Biases
    get a standard deviation of 0.1, as the exporter would remove zero biases, which trained
    networks do not have.

    Args:
        network: network in evaluation mode; modified in place.
        example: float32 (1, C, H, W) with a standard deviation of 1.

    Source: layer-sequential unit variance, arXiv 1511.06422, Section 3.
    """
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)

    def scale(layer: nn.Conv2d, _: Any, output: torch.Tensor) -> torch.Tensor:
        bias = 0 if layer.bias is None else layer.bias.view(-1, 1, 1)
        factor = 1 / (output - bias).std()
        layer.weight.mul_(factor)
        return (output - bias) * factor + bias

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_hook(scale) for layer in layers]
    network(example)
    for hook in hooks:
        hook.remove()


def _host(outputs: Any) -> Floats:
    array: Floats = outputs.cpu().numpy() if isinstance(outputs, torch.Tensor) else outputs
    return array
