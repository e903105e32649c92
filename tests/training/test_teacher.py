from __future__ import annotations

from pathlib import Path

import pytest
import torch
from few_digits import few_digits
from torch import nn

from core.errors import UserError
from training.checkpoint import checkpoint_path, load_checkpoint, run_folder
from training.fit import fit
from training.networks import DistillationLoss, load_teacher
from training.recipe import Recipe

TEACHER = run_folder("mobilenet_v3", "digits")


class Constant(nn.Module):
    """Answers the same logits for every image."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(pixels), -1)


def test_the_loss_by_hand() -> None:
    asked = torch.tensor([2.0, 0.0, -2.0])
    logits = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 3.0]])
    targets = torch.tensor([0, 2])
    loss = DistillationLoss(Constant(asked), 4.0, nn.CrossEntropyLoss())  # type: ignore[arg-type]
    hard = -torch.log_softmax(logits, 1)[[0, 1], targets].mean()
    soft = -(torch.softmax(asked / 4, 0) * torch.log_softmax(logits / 4, 1)).sum(1).mean()
    pixels = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    torch.testing.assert_close(loss(logits, targets, pixels), hard + 16 * soft)
    assert not list(loss.parameters())
    assert not loss.state_dict()


def test_a_run_learns_from_another(in_trained: Path, tmp_path: Path) -> None:
    data = few_digits("digits", train=192, val=40)
    teacher = load_teacher(str(TEACHER), data.labels, [32])
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    recipe = Recipe(
        epochs=1, batch_size=64, learning_rate=3e-3, resize=32, crop=32, min_scale=1.0,
        flip=False, teacher=str(TEACHER), temperature=2.0, mixup=0.2,
    )  # fmt: skip
    checkpoint = load_checkpoint(fit("resnet14_separable", data, recipe))
    assert checkpoint.recipe["teacher"] == str(TEACHER)
    assert set(checkpoint.state_dict) == set(checkpoint.network().state_dict())
    assert checkpoint_path(TEACHER).exists()


def test_a_teacher_of_other_classes(in_trained: Path) -> None:
    with pytest.raises(UserError, match=rf"{TEACHER} .*\b10\b.*\(0, \.\.\.\).*\b2\b"):
        load_teacher(str(TEACHER), ("cat", "dog"), [32])
    with pytest.raises(UserError, match=rf"{in_trained}/checkpoint\.ckpt: "):
        load_teacher(str(in_trained), ("cat", "dog"), [32])
    with pytest.raises(UserError, match=r"'resnet500': .*resnet50"):
        load_teacher("resnet500", ("cat", "dog"), [32])
