"""Each network of the registry down the road to ONNX and TensorRT for RTX."""

from __future__ import annotations

import pytest

from export.to_fp16 import to_fp16
from export.to_onnx import to_onnx
from export.to_tensorrt import build_engine
from models.classifier import Classifier
from models.cost import layer_costs, total_macs
from models.registry import build_model, find_model, list_models

# Small, and each of another make: depthwise, shuffled, grouped, no batch norm in the way.
HANDFUL = ("mobilenet_v1_x0_25", "shufflenet_v1_g3", "shufflenet_v2_x0_5", "resnet14_se")
EVERY = [
    pytest.param(name, marks=[] if name in HANDFUL else pytest.mark.slow) for name in list_models()
]


@pytest.mark.parametrize("name", EVERY)
def test_exports_without_shape_arithmetic_and_builds_in_fp16(name: str) -> None:
    size = find_model(name).native_size
    model = to_onnx(Classifier(build_model(name)), size=size, max_batch=8)  # refuses shapes
    assert total_macs(layer_costs(model)) > 1_000_000
    engine = build_engine(to_fp16(model).SerializeToString(), "tensorrt_rtx", batch_range=(1, 8))
    assert len(engine) > 100_000
