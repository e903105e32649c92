from __future__ import annotations

from collections import Counter

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from core.errors import UserError
from export.to_onnx import EXAMPLE, to_onnx
from models.classifier import Classifier


def pooled(out: int) -> Classifier:
    torch.manual_seed(0)
    head = nn.Linear(4 * out * out, 5)
    return Classifier(
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(out), nn.Flatten(), head)
    )


@pytest.mark.parametrize(
    ("size", "out", "op"), [(12, 1, "GlobalAveragePool"), (12, 6, "AveragePool"), (6, 6, None)]
)
def test_pools_become_one_operator_at_most(size: int, out: int, op: str | None) -> None:
    ops = same_logits(pooled(out), size)
    assert sum(count for name, count in ops.items() if "Pool" in name) == (op is not None)
    assert op is None or ops[op] == 1


@pytest.mark.parametrize(("size", "out"), [(10, 7), (2, 7), (3, 2)])
def test_pools_of_uneven_windows_are_two_products(size: int, out: int) -> None:
    ops = same_logits(pooled(out), size)
    assert ops["MatMul"] == 2
    assert not any("Pool" in name for name in ops)


def same_logits(network: Classifier, size: int) -> Counter[str]:
    """Returns the operators of an exported network, which gives the logits that torch gives."""
    model = to_onnx(network, size=size)
    pixels = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (logits,) = session.run(None, {"pixels": pixels})
    expected = network(torch.from_numpy(pixels)).detach().numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    return Counter(node.op_type for node in model.graph.node)


class Branching(nn.Module):
    """A convolution and batch norm, and a branch that torch.fx cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval()
        nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(list(images.shape)) != 4:
            raise ValueError("no images")
        return self.norm(self.conv(images)).flatten(1)


def test_batch_norm_is_folded_of_networks_that_branch_and_of_those_that_do_not() -> None:
    branching = Branching()
    with pytest.raises(torch.fx.proxy.TraceError):
        torch.fx.symbolic_trace(branching)
    plain = nn.Sequential(branching.conv, branching.norm, nn.Flatten())
    for backbone in (branching, plain):
        model = to_onnx(Classifier(backbone), size=6)
        ops = [node.op_type for node in model.graph.node]
        assert "Conv" in ops
        assert "BatchNormalization" not in ops
    assert isinstance(plain[1], nn.BatchNorm2d)  # the network itself is as it was


class Counting(nn.Module):
    """Adds to each logit the place of its image in the batch."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1)[:, :4]
        return flat + torch.arange(images.shape[0], device=images.device)[:, None]


class Mixing(nn.Module):
    """Adds to each logit its mean over the batch, through a shape that merges the batch."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1)[:, :4]
        return flat + flat.reshape(1, -1, 4).mean(dim=1)


class Merging(nn.Module):
    """Merges images and channels into one dimension, as attention does with heads."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        merged = images.reshape(images.shape[0] * 3, -1)
        return merged.softmax(dim=1).reshape(images.shape[0], -1)[:, :4]


@pytest.mark.parametrize("layer", [Counting, Mixing, Merging])
def test_what_depends_on_the_batch_size_is_refused(layer: type[nn.Module]) -> None:
    with pytest.raises(UserError, match="bound to the number of images it was traced with"):
        to_onnx(Classifier(layer()), size=8)


def test_the_batch_is_free_also_where_a_size_equals_the_example() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, EXAMPLE, 3), nn.ChannelShuffle(EXAMPLE), nn.Flatten())
    network = Classifier(layers.append(nn.Linear(EXAMPLE * EXAMPLE**2, EXAMPLE)))
    model = to_onnx(network, size=EXAMPLE + 2)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for batch in (1, EXAMPLE, EXAMPLE + 1):
        pixels = np.full((batch, EXAMPLE + 2, EXAMPLE + 2, 3), 9, dtype=np.uint8)
        (logits,) = session.run(None, {"pixels": pixels})
        expected = network(torch.from_numpy(pixels)).detach().numpy()
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
