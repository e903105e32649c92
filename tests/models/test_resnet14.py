from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from core.errors import UserError
from export.to_onnx import to_onnx
from models.classifier import Classifier
from models.registry import build_model, find_model
from models.resnet14 import (
    BasicBlock,
    DenseBlock,
    ResNet14,
    basic_stage,
    conv3x3,
    separable3x3,
)

COUNTS = {
    # name: parameters with 10 classes, thousands in the published table, MACs at 32x32
    "resnet14": (195_738, 195, 28_754_560),
    "resnet14_g2": (98_970, 99, 14_598_784),
    "resnet14_g4": (50_586, 50, 7_520_896),
    "resnet14_dense": (340_890, 341, 49_988_224),
    "resnet14_separable": (27_738, 27, 4_620_928),
    "resnet14_se": (201_394, 201, 28_759_936),
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_exact(name: str) -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as flops:
        network = build_model(name, num_classes=10).eval()
        network(torch.zeros(1, 3, 32, 32))
    parameters, published, macs = COUNTS[name]
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert flops.get_total_flops() == 2 * macs
    assert find_model(name).native_size == 32
    # The table rounds 195,738 down to 195 and 98,970 up to 99: a neighbouring thousand will do.
    assert abs(parameters - 1000 * published) < 1000


@pytest.mark.parametrize("name", COUNTS)
def test_variations_leave_stem_and_head_alone_and_reach_every_other_convolution(name: str) -> None:
    plain, network = build_model("resnet14"), build_model(name)
    for part in ("stem", "pool", "head"):
        assert str(network.get_submodule(part)) == str(plain.get_submodule(part))
    convs = [m for m in network.get_submodule("stages").modules() if isinstance(m, nn.Conv2d)]
    convs = [conv for conv in convs if conv.bias is None]  # those of SE have one
    groups = [conv.groups for conv in convs if conv.kernel_size == (3, 3)]
    assert len(groups) == 14  # twelve, and two shortcuts
    if name == "resnet14_separable":
        depthwise = [conv for conv in convs if conv.kernel_size == (3, 3)]
        assert all(conv.groups == conv.in_channels == conv.out_channels for conv in depthwise)
        assert len(convs) == 28
    else:
        assert set(groups) == {{"resnet14_g2": 2, "resnet14_g4": 4}.get(name, 1)}
        assert len(convs) == 14


@pytest.mark.parametrize("name", COUNTS)
def test_stages_halve_the_size(name: str) -> None:
    network = build_model(name, num_classes=3).eval()
    x = network.get_submodule("stem")(torch.zeros(1, 3, 33, 33))
    shapes = []
    for stage in network.get_submodule("stages").children():
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(16, 33, 33), (32, 17, 17), (64, 9, 9)]
    assert network(torch.zeros(1, 3, 1, 1)).shape == (1, 3)


def test_basic_block_adds_its_shortcut_after_the_gate() -> None:
    block = BasicBlock(conv3x3, 4, 8, 2, 4).eval()
    conv1, _, conv2, gate = block.branch
    x = torch.randn(2, 4, 6, 6)
    branch = gate(conv2(torch.relu(conv1(x))))
    assert torch.equal(block(x), torch.relu(branch + block.shortcut(x)))
    assert not torch.equal(branch, conv2(torch.relu(conv1(x))))


def test_dense_block_is_wired_as_published() -> None:
    torch.manual_seed(0)
    block = DenseBlock(conv3x3, 4, 8, 2).eval()
    x = torch.randn(2, 4, 6, 6)
    l1, l2, l3, l4 = block.conv1, block.conv2, block.conv3, block.conv4
    out = torch.relu(l1(x))
    out2 = torch.relu(l2(out))
    out3 = torch.cat((out, out2), 1)
    out4 = torch.relu(l3(out3))
    out5 = torch.cat((out3, out4), 1)
    expected = torch.relu(l4(out5) + block.shortcut(x))
    torch.testing.assert_close(block(x), expected, rtol=0, atol=0)
    assert isinstance(DenseBlock(conv3x3, 8, 8, 1).shortcut, nn.Identity)


def test_groups_do_not_mix() -> None:
    conv = conv3x3(8, 8, 1, groups=4).eval()
    x = torch.randn(1, 8, 5, 5)
    changed = x.clone()
    changed[:, 2:4] += 1
    differs = (conv(x) != conv(changed)).flatten(2).any(2)[0]
    assert differs.tolist() == [False, False, True, True, False, False, False, False]


def test_separable_halves_have_nothing_between_them() -> None:
    conv = separable3x3(4, 6, 2).eval()
    assert [type(layer) for layer in conv.children()] == [nn.Conv2d, nn.Conv2d, nn.BatchNorm2d]
    assert conv(torch.zeros(1, 4, 7, 7)).shape == (1, 6, 4, 4)


@pytest.mark.parametrize("groups", [0, -1, 3, 32])
def test_impossible_groups(groups: int) -> None:
    message = f"groups is {groups}: it must be at least 1 and divide 16 and 16"
    with pytest.raises(UserError, match=message):
        ResNet14(conv=functools.partial(conv3x3, groups=groups))


@pytest.mark.parametrize("reduction", [0, 3, 32])
def test_impossible_reduction(reduction: int) -> None:
    stage: Any = functools.partial(basic_stage, reduction=reduction)
    with pytest.raises(UserError, match=f"reduction is {reduction}: it must be at least 1"):
        ResNet14(stage=stage)


@pytest.mark.parametrize("name", ["resnet14_g4", "resnet14_dense", "resnet14_se"])
def test_exported_graph_agrees_and_has_no_shape_arithmetic(name: str) -> None:
    torch.manual_seed(0)
    network = Classifier(build_model(name, num_classes=10)).eval()
    model = to_onnx(network, size=32)
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    (logits,) = session.run(None, {"pixels": pixels})
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels))
    assert expected.std() > 1e-3
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-4)
