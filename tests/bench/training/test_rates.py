from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import SimpleNamespace

import pytest
import torch

from bench.training import measure
from bench.training.measure import REFERENCE, PlainLoop, training_rates
from core.errors import UserError
from training.datasets import load_data
from training.loader import Batch, Loaders
from training.module import ClassifierModule
from training.networks import first_network
from training.recipe import Recipe

RECIPE = Recipe(
    epochs=1, batch_size=32, learning_rate=0.1, optimizer="sgd", resize=8, crop=8, min_scale=1.0
)


def test_every_rate_is_that_of_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    # By a clock that only work moves: a batch that is loaded takes 1 s, a step of the trainer 2 s,
    # one of a plain loop 4 s.
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    learn, loop = ClassifierModule.training_step, PlainLoop.__call__
    load = Loaders.train_dataloader

    def step(module: ClassifierModule, batch: Batch, index: int) -> torch.Tensor:
        clock.now += 2
        return learn(module, batch, index)

    def plain(self: PlainLoop, batch: Batch) -> None:
        clock.now += 4
        loop(self, batch)

    class Loading:
        def __init__(self, loader: Iterable[Batch]) -> None:
            self.loader = loader

        def __iter__(self) -> Iterator[Batch]:
            for batch in self.loader:
                clock.now += 1
                yield batch

    monkeypatch.setattr(ClassifierModule, "training_step", step)
    monkeypatch.setattr(PlainLoop, "__call__", plain)
    monkeypatch.setattr(Loaders, "train_dataloader", lambda self: Loading(load(self)))
    rates = training_rates("resnet14", load_data("digits"), RECIPE, steps=2)
    assert (rates.loader, rates.step, rates.both) == (32 / 1, 32 / 2, 32 / 3)
    if not torch.cuda.is_available():
        assert REFERENCE in rates.loops
        assert set(rates.loops.values()) == {32 / 4}


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
