"""Builds networks on torch's meta device, which has shapes and no values."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from core.image_size import Size
from models.registry import build_model

_DRAWING = (torch.Tensor.normal_, torch.Tensor.uniform_)
_INIT = "torch.nn.init"  # its functions call those without asking again


class _NoDrawing(TorchFunctionMode):
    """Skips random initialisation, which takes most of the time even on the meta device."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWING or getattr(func, "__module__", None) == _INIT:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def build_on_meta(
    name: str, *, num_classes: int = 1000, size: Size | None = None, channels: int = 3
) -> nn.Module:
    """Returns network ``name`` on the meta device; see :func:`models.registry.build_model`."""
    try:
        with torch.device("meta"), _NoDrawing():
            return build_model(name, num_classes=num_classes, size=size, channels=channels)
    except NotImplementedError:  # torchvision's RegNets compute widths of layers in tensors
        with _NoDrawing():
            network = build_model(name, num_classes=num_classes, size=size, channels=channels)
        return network.to("meta")
