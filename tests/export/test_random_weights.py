"""Random weights are good for latency only if what flows through the network is like real numbers.

Too small, and a CPU meets denormal numbers, a gate of squeeze-and-excitation gives one constant,
and int8 calibration has no range to work with.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from core.preprocess import Preprocess
from export.network import load_network
from export.random_weights import SETTLING, random_module
from export.samples import photos, stack
from models.classifier import Classifier
from models.registry import DEFAULT_NETWORKS, build_model, find_model
from models.weights import open_branches

SMALLEST, LARGEST = 1e-3, 1e3  # standard deviation of an activation
SMALLEST_NORMAL = torch.finfo(torch.float32).tiny
PHOTOS = 4  # none of those that batch norm is settled on


@dataclass(frozen=True, kw_only=True)
class Activation:
    layer: str
    std: float
    denormals: int

    @property
    def sane(self) -> bool:
        return SMALLEST <= self.std <= LARGEST and self.denormals == 0


def preprocess(side: int) -> Preprocess:
    return Preprocess(resize=round(side * 8 / 7), crop=side)


def activations(network: nn.Module, side: int) -> tuple[list[Activation], torch.Tensor]:
    """Returns what comes out of every leaf module for some photos, and the logits."""
    found: list[Activation] = []

    def keep(layer: str, output: torch.Tensor) -> None:
        denormal = (output != 0) & (output.abs() < SMALLEST_NORMAL)
        found.append(
            Activation(layer=layer, std=float(output.std()), denormals=int(denormal.sum()))
        )

    for name, module in network.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda _, __, output, name=name: keep(name, output))
    _, held_out = photos()
    pixels = torch.from_numpy(stack(held_out[:PHOTOS], preprocess(side)))
    with torch.inference_mode():
        logits = network(pixels)
    return found, logits


def check(network: nn.Module, side: int) -> None:
    found, logits = activations(network, side)
    assert len(found) > 50  # every layer was hooked
    assert [activation for activation in found if not activation.sane] == []
    assert float(logits.abs().max()) > 1e-2
    assert float(logits.std(dim=0).mean()) > SMALLEST  # another image, another answer


@pytest.mark.parametrize("name", DEFAULT_NETWORKS)
def test_activations_are_sane(name: str) -> None:
    # Smaller still, and 16 photos of a last stage of 2 x 2 say too little of its statistics.
    side = find_model(name).native_size // 3
    check(random_module(name, preprocess(side)), side=side)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFAULT_NETWORKS)
def test_activations_are_sane_at_native_size(name: str) -> None:
    check(load_network(name, None, weights="random").module, side=find_model(name).native_size)


@pytest.mark.parametrize("name", ["mobilenet_v3_large", "mobilenet_v3_small"])
def test_without_settling_they_collapse(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Classifier(build_model(name)).eval()
    found, logits = activations(network, side=64)
    assert min(activation.std for activation in found) < 1e-6
    assert float(logits.abs().max()) < 1e-6
    with pytest.raises(AssertionError):
        check(network, side=64)


def test_the_photos_looked_at_are_not_those_settled_on() -> None:
    settled, held_out = photos()
    first = {id(photo) for photo, _ in settled[:SETTLING]}
    assert first.isdisjoint({id(photo) for photo, _ in held_out[:PHOTOS]})


def test_no_branch_is_closed() -> None:
    def gradients(opened: bool) -> list[str]:
        torch.manual_seed(0)
        layers = nn.ModuleDict({"a": nn.Conv2d(3, 3, 1), "b": nn.Conv2d(3, 3, 1)})
        gain, scale = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.full((3, 1, 1), 1e-6))
        head = nn.Linear(3, 2)
        nn.init.zeros_(head.weight)
        whole = nn.Module()
        for name, part in layers.items():
            whole.add_module(name, part)
        whole.gain, whole.scale, whole.head = gain, scale, head
        if opened:
            open_branches(whole)
        images = torch.rand(2, 3, 4, 4)
        branches = layers["a"](images) * gain.view(3, 1, 1) + layers["b"](images) * scale
        head((images + branches).mean((2, 3))).square().sum().backward()
        parameters = whole.named_parameters()
        return [name for name, p in parameters if p.grad is None or p.grad.abs().max() < 1e-6]

    assert {"a.weight", "b.weight", "gain", "scale"} <= set(gradients(opened=False))
    assert gradients(opened=True) == []


def test_they_are_the_same_however_many_threads_there_are() -> None:
    def drawn(threads: int) -> dict[str, torch.Tensor]:
        torch.set_num_threads(threads)
        state = random_module("mobilenet_v3_small", preprocess(224)).state_dict()
        assert torch.get_num_threads() == threads
        return state

    one, two = drawn(1), drawn(2)
    with ThreadPoolExecutor(2) as pool:  # and whoever else draws at the same time
        others = [pool.submit(drawn, 1) for _ in range(2)]
    for other in (two, *(each.result() for each in others)):
        assert all(torch.equal(one[name], other[name]) for name in one)
