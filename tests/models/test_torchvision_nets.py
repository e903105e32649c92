from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.channels import adapted
from models.cost import known_costs
from models.input_size import check_input_size
from models.registry import build_model, find_model
from models.weight_places import on_meta

# shared figures, counted exactly: name, parameters, input side, MACs in M to the digit printed.
EXACT = [
    ("mobilenet_v2", 3_504_872, 224, 300.774),
    ("mobilenet_v2_x1_4", 6_108_776, 224, 582.196),
    ("mobilenet_v2_x0_75", 2_636_424, 224, 209.070),
    ("mobilenet_v2_x0_5", 1_968_680, 224, 97.132),
    ("mobilenet_v3_large", 5_483_032, 224, 216.590),
    ("mobilenet_v3_large_x0_75", 3_377_576, 224, 140.034),
    ("mobilenet_v3_small", 2_542_856, 224, 56.510),
    ("shufflenet_v2_x0_5", 1_366_792, 224, 40.476),
    ("shufflenet_v2_x1_0", 2_278_604, 224, 144.908),
    ("shufflenet_v2_x1_5", 3_503_624, 224, 295.759),
    ("shufflenet_v2_x2_0", 7_393_996, 224, 583.253),
    ("efficientnet_b0", 5_288_548, 224, 385.815),
    ("efficientnet_b1", 7_794_184, 240, 686.803),
    ("efficientnet_b2", 9_109_994, 260, 993.562),
    ("efficientnet_b3", 12_233_232, 300, 1_827.141),
    ("efficientnet_b4", 19_341_616, 380, 4_393.771),
    ("efficientnet_b5", 30_389_784, 456, 10_266.385),
    ("efficientnet_b6", 43_040_704, 528, 19_067.594),
    ("efficientnet_b7", 66_347_960, 600, 37_745.884),
    ("efficientnet_v2_s", 21_458_488, 384, 8_365.617),
    ("efficientnet_v2_m", 54_139_356, 480, 24_582.460),
    ("efficientnet_v2_l", 118_515_272, 480, 56_079.699),
    ("efficientnet_lite0", 4_652_008, 224, 385.188),
    ("efficientnet_lite1", 5_416_680, 240, 600.185),
    ("efficientnet_lite2", 6_092_072, 260, 859.736),
    ("resnet50", 25_557_032, 224, 4_089.184),
    ("resnext50_32x4d", 25_028_904, 224, 4_230.480),
    ("densenet121", 7_978_856, 224, 2_834.162),
    ("vgg16", 138_357_544, 224, 15_470.264),
]


@pytest.mark.parametrize(("name", "parameters", "size", "macs"), EXACT)
def test_parameters_and_macs_are_exact(name: str, parameters: int, size: int, macs: float) -> None:
    cost = known_costs()[name]  # test_cost.py compares these with what torch counts
    assert cost.parameters == parameters
    assert round(cost.macs / 1e6, 3) == macs
    assert find_model(name).native_size == size


def test_those_of_a_network_of_timm_are_exact() -> None:
    name = "timm/mobilenetv3_large_075"
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = build_model(name).eval()
        network(torch.zeros(1, 3, 224, 224))
    assert sum(parameter.numel() for parameter in network.parameters()) == 3_993_528
    assert round(counter.get_total_flops() / 2 / 1e6, 3) == 154.561
    assert find_model(name).native_size == 224


@pytest.mark.parametrize("name", ["regnet_x_400mf", "vit_b_32", "inception_v3", "squeezenet1_1"])
def test_a_classifier_is_checked_without_values_for_any_channels(name: str) -> None:
    name = f"torchvision/{name}"
    check_input_size(name, find_model(name).native_size, channels=4)
    rgb, grey = (on_meta(name, 7, channels=channels) for channels in (3, 1))
    weights = adapted(rgb, grey, 1)
    assert [each.shape for each in weights.values()] == [each.shape for each in grey.values()]
