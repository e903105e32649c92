from __future__ import annotations

import pytest
import torch

from bench.training.measure import REFERENCE, PlainLoop, training_rates
from core.errors import UserError
from training.datasets import load_data
from training.loader import Loaders
from training.module import ClassifierModule
from training.networks import first_network
from training.recipe import Recipe

RECIPE = Recipe(
    epochs=1, batch_size=32, learning_rate=0.1, optimizer="sgd", resize=8, crop=8, min_scale=1.0
)


def test_every_rate_is_measured() -> None:
    rates = training_rates("resnet14", load_data("digits"), RECIPE, steps=2)
    assert min(rates.loader, rates.step, rates.both, *rates.loops.values()) > 0
    assert REFERENCE in rates.loops or torch.cuda.is_available()
    # Reading, decoding and learning cannot take less time than the learning does.
    assert rates.both < 3 * rates.step


def test_the_plain_loop_does_the_work_of_the_step() -> None:
    data = load_data("digits")
    batch = next(iter(Loaders(data, RECIPE).train_dataloader()))
    torch.manual_seed(0)
    network, _ = first_network("resnet14", data.labels, RECIPE)
    module = ClassifierModule(network, {}, data.labels, RECIPE)
    logits = module.network(batch.pixels)
    loss = torch.nn.functional.cross_entropy(logits, batch.labels, label_smoothing=0.1)
    loss.backward()
    expected = network.backbone.head.weight.grad
    torch.manual_seed(0)
    loop = PlainLoop("resnet14", data, RECIPE)
    loop(batch)
    other = loop.network.backbone.head.weight.grad
    torch.testing.assert_close(other, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("last", [False, True])
def test_images_are_laid_out_as_the_loop_says(last: bool) -> None:
    data = load_data("digits")
    batch = next(iter(Loaders(data, RECIPE).train_dataloader()))
    loop = PlainLoop("resnet14", data, RECIPE, last=last)
    seen: list[torch.Tensor] = []
    loop.network.backbone.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    loop(batch)
    layout = torch.channels_last if last else torch.contiguous_format
    assert seen[0].is_contiguous(memory_format=layout)


def test_too_few_images() -> None:
    few = Recipe(epochs=1, batch_size=1000, learning_rate=0.1)
    with pytest.raises(UserError, match="batch_size is 1000: 1438 training images hold fewer than"):
        training_rates("resnet14", load_data("digits"), few, steps=2)
