from __future__ import annotations

import pytest
import torch

from core.errors import UserError
from core.names import canonical_name
from models.registry import build_model, find_model, list_models


@pytest.mark.parametrize("name", list_models())
def test_every_network_maps_images_to_classes(name: str) -> None:
    size = find_model(name).native_size
    with torch.device("meta"):
        network, images = build_model(name, num_classes=7).eval(), torch.zeros(2, 3, size, size)
    with torch.inference_mode():
        logits = network(images)
    assert logits.shape == (2, 7)
    assert logits.dtype == torch.float32


def test_names_are_sorted_and_mobilenet_v3_is_the_large_one() -> None:
    assert list_models() == sorted(list_models())
    assert canonical_name("mobilenet_v3") == "mobilenet_v3_large"
    network = build_model("mobilenet_v3")
    # Exact count, MobileNetV3-Large 1.0 with 1,000 classes.
    assert sum(parameter.numel() for parameter in network.parameters()) == 5_483_032


def test_unknown_name_lists_the_closest() -> None:
    with pytest.raises(UserError, match=r"unknown model 'mobilenetv3': did you mean mobilenet_v3"):
        build_model("mobilenetv3")


def test_num_classes_below_one() -> None:
    with pytest.raises(UserError, match="num_classes is 0: it must be at least 1"):
        build_model("mobilenet_v3", num_classes=0)
