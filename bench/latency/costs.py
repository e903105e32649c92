"""What a network and its graph cost, whatever they run on."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from artifact.artifact import Artifact
from models.cost import Kind, layer_costs, sum_costs


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The costs of a network and its float32 graph, for one image.

    Attributes:
        macs: multiply-accumulates.
        parameters: elements of the torch network's weights and biases.
        activations: elements of the outputs of convolutions and matrix products.
        bytes_moved: bytes of the inputs, weights and outputs of all layers, without fusion.
        kernels: layers that compute or move something.
        depthwise: fraction of ``macs`` in depthwise convolutions.
        pointwise: fraction of ``macs`` in 1x1 convolutions.
        grouped: fraction of ``macs`` in other grouped convolutions.
    """

    macs: int
    parameters: int
    activations: int
    bytes_moved: int
    kernels: int
    depthwise: float
    pointwise: float
    grouped: float


def count_costs(artifact: Artifact) -> Costs:
    """Returns the costs of an ``onnx-fp32`` artifact, counted from its graph."""
    import onnx

    layers = layer_costs(onnx.load(artifact.model_file))
    network = sum_costs(layers, parameters=artifact.parameters)

    def share(kind: Kind) -> float:
        return sum(layer.macs for layer in layers if layer.kind == kind) / (network.macs or 1)

    return Costs(
        **asdict(network),
        kernels=sum(layer.bytes_moved() > 0 for layer in layers),
        depthwise=share("depthwise"),
        pointwise=share("pointwise"),
        grouped=share("grouped"),
    )
