from __future__ import annotations

from collections import Counter

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from export.to_onnx import to_onnx
from models.classifier import Classifier
from models.errors import UserError


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
    network = pooled(out)
    model = to_onnx(network, size=size, max_batch=4)
    ops = Counter(node.op_type for node in model.graph.node)
    assert sum(count for name, count in ops.items() if "Pool" in name) == (op is not None)
    assert op is None or ops[op] == 1
    pixels = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (logits,) = session.run(None, {"pixels": pixels})
    expected = network(torch.from_numpy(pixels)).detach().numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_a_pool_of_uneven_windows_is_refused() -> None:
    with pytest.raises(UserError, match=r"from \[10, 10\] to \[7, 7\]: only whole windows"):
        to_onnx(pooled(7), size=10, max_batch=4)


def test_shape_arithmetic_is_refused() -> None:
    class Shapely(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            flat = images.flatten(1)[:, :4]
            return flat + torch.arange(images.shape[0], device=images.device)[:, None]

    with pytest.raises(UserError, match="computes with shapes at run time"):
        to_onnx(Classifier(Shapely()), size=8, max_batch=4)
