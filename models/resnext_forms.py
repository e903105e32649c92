"""The ResNeXt block in its three equivalent forms.

Aggregated Residual Transformations for Deep Neural Networks: https://arxiv.org/abs/1611.05431
(Section 3.3, Figure 3)

The paper's 256-d 32x4d block, 70,144 weights beside the 69,632 of ResNet's bottleneck:

    form         first 1x1             3x3                  joined by  last 1x1
    (a) Sum      32 branches, 256->4   32 branches, 4->4    sum, last  32 branches, 4->256
    (b) Concat   32 branches, 256->4   32 branches, 4->4    concat     one, 128->256
    (c) Grouped  one, 256->128         one, in 32 groups    -          one, 128->256

(c) is the one used in practice, as in torchvision's ``resnext50_32x4d``. Batch norm and ReLU follow
every convolution; in (a) the last norm comes after the sum (Section 4), as a norm per branch would
be a different function.
"""

from __future__ import annotations

import torch
from torch import nn

from core.errors import UserError


class GroupedForm(nn.Module):
    """Form (c), a bottleneck with a grouped 3x3: (N, width, H, W) -> the same shape.

    Args:
        width: input and output channels.
        cardinality: number of branches, C in the paper.
        d: channels inside one branch.

    Raises:
        UserError: any of them is below 1.
    """

    def __init__(self, width: int = 256, *, cardinality: int = 32, d: int = 4) -> None:
        super().__init__()
        _at_least_one(width=width, cardinality=cardinality, d=d)
        self.branches = _branch(width, cardinality * d, groups=cardinality)
        self.last = nn.Conv2d(cardinality * d, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns relu(norm(last(branches(x))) + x)."""
        inner = self.branches(x)  # N, 128, H, W
        return torch.relu(self.norm(self.last(inner)) + x)  # N, 256, H, W


class ConcatForm(nn.Module):
    """Form (b): branches are concatenated before one last 1x1; else as :class:`GroupedForm`."""

    def __init__(self, width: int = 256, *, cardinality: int = 32, d: int = 4) -> None:
        super().__init__()
        _at_least_one(width=width, cardinality=cardinality, d=d)
        self.branches = nn.ModuleList(_branch(width, d) for _ in range(cardinality))
        self.last = nn.Conv2d(cardinality * d, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns relu(norm(last(concat of branch_i(x))) + x)."""
        inner = torch.cat([branch(x) for branch in self.branches], dim=1)  # N, 128, H, W
        return torch.relu(self.norm(self.last(inner)) + x)  # N, 256, H, W


class SumForm(nn.Module):
    """Form (a): complete branches are summed; else as :class:`GroupedForm`."""

    def __init__(self, width: int = 256, *, cardinality: int = 32, d: int = 4) -> None:
        super().__init__()
        _at_least_one(width=width, cardinality=cardinality, d=d)
        self.branches = nn.ModuleList(
            nn.Sequential(_branch(width, d), nn.Conv2d(d, width, 1, bias=False))
            for _ in range(cardinality)
        )
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns relu(norm(sum of branch_i(x)) + x)."""
        total = torch.stack([branch(x) for branch in self.branches]).sum(dim=0)  # N, 256, H, W
        return torch.relu(self.norm(total) + x)


def to_concat(grouped: GroupedForm) -> ConcatForm:
    """Returns form (b) with the weights of ``grouped``, which computes the same function.

    Branch i gets the i-th slice of the first 1x1's outputs, of both norms and of the 3x3's groups.
    """
    form = ConcatForm(grouped.norm.num_features, **_cardinality_and_d(grouped))
    form.to(grouped.last.weight)
    for i, branch in enumerate(form.branches):
        branch.load_state_dict(_slice_of(grouped.branches, i, len(form.branches)))
    form.last.load_state_dict(grouped.last.state_dict())
    form.norm.load_state_dict(grouped.norm.state_dict())
    return form.train(grouped.training)


def to_sum(grouped: GroupedForm) -> SumForm:
    """Returns form (a) with the weights of ``grouped``, which computes the same function.

    Besides the slices of :func:`to_concat`, branch i gets the i-th slice of the last 1x1's inputs.
    """
    form = SumForm(grouped.norm.num_features, **_cardinality_and_d(grouped))
    form.to(grouped.last.weight)
    lasts = grouped.last.weight.detach().chunk(len(form.branches), dim=1)
    for i, (branch, weight) in enumerate(zip(form.branches, lasts, strict=True)):
        assert isinstance(branch, nn.Sequential)
        inner, last = branch
        inner.load_state_dict(_slice_of(grouped.branches, i, len(form.branches)))
        last.load_state_dict({"weight": weight})
    form.norm.load_state_dict(grouped.norm.state_dict())
    return form.train(grouped.training)


def _branch(width: int, inner: int, *, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, inner, 1, bias=False),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        nn.Conv2d(inner, inner, 3, padding=1, groups=groups, bias=False),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
    )


def _slice_of(branches: nn.Module, i: int, cardinality: int) -> dict[str, torch.Tensor]:
    # In all tensors the output channels come first, except num_batches_tracked, which are scalars.
    state = branches.state_dict()
    return {k: v.chunk(cardinality)[i] if v.ndim else v for k, v in state.items()}


def _cardinality_and_d(grouped: GroupedForm) -> dict[str, int]:
    conv3x3 = grouped.branches[3]
    assert isinstance(conv3x3, nn.Conv2d)
    return {"cardinality": conv3x3.groups, "d": conv3x3.in_channels // conv3x3.groups}


def _at_least_one(**arguments: int) -> None:
    for name, value in arguments.items():
        if value < 1:
            raise UserError(f"{name} is {value}: it must be at least 1")
