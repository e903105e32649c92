from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torchvision.transforms import functional

from models.classifier import IMAGENET_MEAN, IMAGENET_STD, Classifier
from models.weights import settle_batch_norm


def test_normalises_like_torchvision() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), dtype=np.uint8)
    ours = Classifier(nn.Identity())(torch.from_numpy(pixels))
    for image, normalised in zip(pixels, ours, strict=True):
        expected = functional.normalize(
            functional.to_tensor(image), list(IMAGENET_MEAN), list(IMAGENET_STD)
        )
        torch.testing.assert_close(normalised, expected, rtol=1e-5, atol=1e-5)


def test_logits_are_float32_also_of_a_half_network() -> None:
    network = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(75, 4))).half()
    logits = network(torch.zeros(1, 5, 5, 3, dtype=torch.uint8))
    assert logits.dtype == torch.float32
    assert logits.shape == (1, 4)


def test_mean_and_std_travel_with_the_weights() -> None:
    saved = Classifier(nn.Identity(), mean=(0.1, 0.2, 0.3), std=(1, 2, 3)).state_dict()
    other = Classifier(nn.Identity())
    other.load_state_dict(saved)
    pixels = torch.full((1, 1, 1, 3), 255, dtype=torch.uint8)
    torch.testing.assert_close(other(pixels).flatten(), torch.tensor([0.9, 0.4, 0.7 / 3]))


def test_settled_batch_norm_keeps_activations_alive() -> None:
    torch.manual_seed(0)
    # Thirty layers that each halve their input: the logits vanish unless the norm is settled.
    layers = [nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3)) for _ in range(30)]
    for layer in layers:
        nn.init.normal_(layer[0].weight, std=0.2)
    network = Classifier(nn.Sequential(*layers)).eval()
    pixels = torch.randint(0, 256, (8, 8, 8, 3), dtype=torch.uint8)
    assert network(pixels).std() < 1e-3
    settle_batch_norm(network, [pixels])
    assert network(pixels).std() > 0.5
    assert not network.training
