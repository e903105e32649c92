"""Each network of the registry down the road to ONNX and TensorRT for RTX."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from artifact.runtimes.tensorrt_builder import build_engine
from export.costs import countable
from export.free_batch import keeps_images_apart, shape_nodes
from export.litert.to_tflite import to_tflite
from export.quantization.fp16 import to_fp16
from export.to_onnx import to_onnx
from models.cost import count_parameters, known_costs, layer_costs, network_cost
from models.registry import find_model, list_models

# Small, and each of another make: depthwise, shuffled, grouped, no batch norm in the way.
HANDFUL = ("mobilenet_v1_x0_25", "shufflenet_v1_g3", "shufflenet_v2_x0_5", "resnet14_se")
EVERY = [
    pytest.param(name, marks=[] if name in HANDFUL else pytest.mark.slow) for name in list_models()
]


def macs_of_modules(network: nn.Module, size: int) -> list[int]:
    """Returns half of what torch counts as FLOPs in each convolution and linear layer."""
    kinds = (nn.Conv2d, nn.Linear)
    leaves = {name for name, module in network.named_modules() if isinstance(module, kinds)}
    with FlopCounterMode(display=False) as counter:
        network.to("meta")(torch.zeros(1, 3, size, size, device="meta"))
    counted = {key.partition(".")[2]: flops for key, flops in counter.get_flop_counts().items()}
    return [sum(counted[name].values()) // 2 for name in leaves]


@pytest.mark.parametrize("name", EVERY)
def test_exports_without_shape_arithmetic_and_builds_in_fp16(name: str) -> None:
    entry = find_model(name)
    network = countable(name)
    model = to_onnx(network, size=entry.native_size)
    assert shape_nodes(model) == 0
    assert keeps_images_apart(model)
    ops = Counter(node.op_type for node in model.graph.node)
    shuffles = ops["Transpose"] - 1  # the other one takes the pixels from NHWC to NCHW
    assert shuffles == 0 or entry.family.startswith("shufflenet")
    assert ops["Reshape"] + ops["Flatten"] <= 1 + 2 * shuffles

    parameters = count_parameters(network)
    assert network_cost(model, parameters=parameters) == known_costs()[name]
    counted = [layer.macs for layer in layer_costs(model) if layer.macs]
    assert sorted(counted) == sorted(macs_of_modules(network.backbone, entry.native_size))

    if find_spec("ai_edge_litert"):
        assert len(to_tflite(model, half=True)) > 2 * parameters

    graph = to_fp16(model).SerializeToString()
    engine, _ = build_engine(graph, "tensorrt_rtx", batch_range=(1, 8))
    assert len(engine) > 100_000
