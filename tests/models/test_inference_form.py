from __future__ import annotations

import pytest
import torch

from export.costs import count, countable
from models.classifier import Classifier
from models.cost import count_parameters
from models.inference_form import inference_form


def drawn(name: str) -> Classifier:
    """Returns a network with random weights, and with statistics that no norm starts with."""
    torch.manual_seed(0)
    network = countable(name).eval()
    for key, buffer in network.named_buffers():
        if key.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif key.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return network


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("mobileone_s0", 2_078_504),
        ("repvgg_a0", 8_309_384),
        ("repvit_m0_9", 5_067_056),  # with two heads, whose mean is the answer
        ("fastvit_t8", 3_996_040),
        ("repghostnet_050", 2_306_528),
        ("ghostnetv3_050", None),
        ("levit_128s", None),
    ],
)
def test_merged_branches_give_the_same_logits(name: str, parameters: int | None) -> None:
    network = drawn(f"timm/{name}")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    merged = inference_form(network)
    pixels = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected, logits = network(pixels), merged(pixels)
    assert not torch.equal(expected[0], expected[1])
    assert float((logits - expected).abs().max() / expected.abs().max()) < 1e-5
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert count_parameters(merged) < count_parameters(network)
    assert parameters in (None, count_parameters(merged))


def test_a_network_without_such_branches_is_left_alone() -> None:
    for name in ("mobilenet_v2", "timm/mobilenetv3_small_050"):
        network = countable(name)
        assert inference_form(network) is network


def test_costs_are_counted_without_the_branches_of_training() -> None:
    cost = count("timm/mobileone_s0")
    assert round(cost.macs / 1e6) == 275  # arXiv 2206.04040, Table 9: MobileOne-S0 has 275 M
    assert cost.parameters == 2_078_504
