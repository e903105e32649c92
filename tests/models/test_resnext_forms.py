from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn

from core.errors import UserError
from models.resnext_forms import ConcatForm, GroupedForm, SumForm, to_concat, to_sum


def conv_weights(form: nn.Module) -> int:
    return sum(m.weight.numel() for m in form.modules() if isinstance(m, nn.Conv2d))


def grouped_form() -> GroupedForm:
    """Returns form (c), 256-d 32x4d, in float64, with batch norms that matter."""
    torch.manual_seed(0)
    form = GroupedForm().double()
    for layer in form.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return form


@pytest.mark.parametrize("form", [SumForm, ConcatForm, GroupedForm])
def test_each_form_has_the_weights_the_paper_counts(form: type[nn.Module]) -> None:
    block = form()
    assert conv_weights(block) == 70_144
    assert block.eval()(torch.zeros(2, 256, 5, 5)).shape == (2, 256, 5, 5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("convert", [to_sum, to_concat])
def test_the_forms_are_one_function(
    convert: Callable[[GroupedForm], nn.Module], training: bool
) -> None:
    grouped = grouped_form().train(training)
    other = convert(grouped)
    assert other.training is training
    x = torch.randn(2, 256, 7, 7, dtype=torch.float64)
    with torch.no_grad():
        expected, actual = grouped(x), other(x)
    assert (expected - torch.relu(x)).abs().max() > 0.1  # the branches matter
    assert (actual - expected).abs().max() <= 1e-12


def test_grouped_form_is_the_block_torchvision_has() -> None:
    theirs = torchvision.models.resnext50_32x4d(weights=None).layer1[1].double().eval()
    ours = grouped_form().eval()
    # Both declare their layers in the order they run.
    state = zip(ours.state_dict(), theirs.state_dict().values(), strict=True)
    with torch.no_grad():
        ours.load_state_dict(dict(state))
        x = torch.randn(1, 256, 5, 5, dtype=torch.float64)
        assert (ours(x) - theirs(x)).abs().max() <= 1e-12


def test_other_shapes_and_types_convert() -> None:
    grouped = GroupedForm(6, cardinality=3, d=5).eval()
    x = torch.randn(1, 6, 3, 4)
    for other in (to_sum(grouped), to_concat(grouped)):
        assert {p.dtype for p in other.parameters()} == {torch.float32}
        torch.testing.assert_close(other(x), grouped(x))


@pytest.mark.parametrize("form", [SumForm, ConcatForm, GroupedForm])
def test_impossible_arguments(form: type[GroupedForm]) -> None:
    with pytest.raises(UserError, match="cardinality is 0: it must be at least 1"):
        form(cardinality=0)
    with pytest.raises(UserError, match="d is 0: it must be at least 1"):
        form(d=0)
