"""Networks without values, to count what they compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn


@contextmanager
def shapes_only() -> Iterator[None]:
    """Makes networks and tensors on torch's meta device, where they have shapes only.

    Initial values and batch norm are left out: there, each of their operators is a stack of calls
    in Python, and they count for nothing.
    """
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        for draw in ("normal_", "uniform_"):
            patch.setattr(torch.Tensor, draw, lambda tensor, *_, **__: tensor)
        patch.setattr(nn.BatchNorm2d, "forward", lambda _, features: features)
        yield
