from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from core.errors import UserError
from export.free_batch import EXAMPLE, shape_nodes
from export.to_onnx import to_onnx
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
    assert_right(model, network, size, batches=(3,))
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


@pytest.mark.parametrize("layer", [Counting, Mixing])
def test_what_depends_on_the_batch_size_is_refused(layer: type[nn.Module]) -> None:
    with pytest.raises(UserError, match="bound to the number of images it was traced with"):
        to_onnx(Classifier(layer()), size=8)


class Merging(nn.Module):
    """Merges images and channels into one dimension, as attention does with heads."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        merged = images.reshape(images.shape[0] * 3, -1)
        return merged.softmax(dim=1).reshape(images.shape[0], -1)[:, :4]


class Windows(nn.Module):
    """Cuts images into windows that stand in the first dimension, as Swin does, and joins them."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        count, channels, side, _ = images.shape
        cut = images.reshape(count, channels, side // 2, 2, side // 2, 2).permute(0, 2, 4, 3, 5, 1)
        windows = cut.reshape(-1, 4, channels).softmax(dim=1)
        return windows.reshape(count, -1)[:, :5]


class ClassToken(nn.Module):
    """Puts a token before the pixels, as ViT does, and gives what comes out in its place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.token = nn.Parameter(torch.randn(1, 1, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = images.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(images.shape[0], -1, -1), tokens], dim=1)
        return tokens[:, 0] + tokens.mean(dim=1)


class Upsampling(nn.Module):
    """Resizes by a factor that float32 does not hold: 7 x 13/7 is 12.999999."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        larger = nn.functional.interpolate(images[..., :7, :7], size=(13, 13), mode="nearest")
        return larger.flatten(1)[:, ::40]


class Expanding(nn.Module):
    """Multiplies matrices, whose shapes torch expands to what they are, and repeats a constant."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        ramp = torch.linspace(0, 1, 8, device=images.device).repeat(images.shape[0], 3, 1, 1)
        return (ramp @ images).expand(images.shape[0], 3, 8, -1).flatten(1)[:, :6]


class Attention(nn.Module):
    """Two heads of attention within windows of rows, and their results side by side."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        count, _, side, width = images.shape
        pixels = images[:, [0, 1, 2, 0]].permute(0, 2, 3, 1).reshape(count * 2, -1, 2, 2)
        heads = pixels.transpose(1, 2)
        bias = torch.linspace(0, 1, 32 * 32, device=images.device).reshape(1, 1, 32, 32)
        mixed = nn.functional.scaled_dot_product_attention(heads, heads, heads, attn_mask=bias)
        mixed = mixed.transpose(1, 2)
        return mixed.reshape(count * 2, side // 2, width, 4).reshape(count, -1)[:, :6]


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [(Merging, 0), (Windows, 0), (Attention, 0), (ClassToken, 3), (Upsampling, 0), (Expanding, 3)],
)
def test_the_batch_is_free_wherever_it_is(layer: type[nn.Module], shapes: int) -> None:
    network = Classifier(layer())
    model = to_onnx(network, size=8)
    assert shape_nodes(model) == shapes
    assert_right(model, network, 8, batches=(1, 2, 5))


def test_the_batch_is_free_also_where_a_size_equals_the_example() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, EXAMPLE, 3), nn.ChannelShuffle(EXAMPLE), nn.Flatten())
    network = Classifier(layers.append(nn.Linear(EXAMPLE * 4, EXAMPLE)))
    model = to_onnx(network, size=4)
    assert_right(model, network, 4, batches=(1, 3))
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"


class Remembering(nn.Module):
    """Keeps from its first call what it adds, as attention biases of LeViT; fx cannot follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.bias, self.kept = nn.Parameter(torch.arange(4.0)), {}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(list(images.shape)) != 4:
            raise ValueError("no images")
        if images.device not in self.kept:
            self.kept[images.device] = self.bias * 2
        return images.flatten(1)[:, :4] + self.kept[images.device]


def test_what_a_layer_keeps_from_its_first_call_is_not_of_the_trace() -> None:
    network = Classifier(Remembering())
    model = to_onnx(network, size=4)
    assert network.backbone.kept == {}
    assert_right(model, network, 4, batches=(2,))


def assert_right(model: Any, network: Classifier, size: int, batches: tuple[int, ...]) -> None:
    """Asserts that a graph gives the logits that torch gives, at each of these batch sizes."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    rng = np.random.default_rng(0)
    for batch in batches:
        pixels = rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
        (logits,) = session.run(None, {"pixels": pixels})
        expected = network(torch.from_numpy(pixels)).detach().numpy()
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
