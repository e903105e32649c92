"""Classifier: a network with its normalisation, uint8 pixels in, float32 logits out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Classifier(nn.Module):
    """A network whose first layer normalises uint8 pixels.

    Mean and standard deviation are buffers: they are saved with the weights, so they cannot differ
    between training and serving.

    Args:
        backbone: float (N, C, H, W), normalised -> (N, C).
        mean: per channel, such as R, G, B, for pixels scaled to [0, 1].
        std: standard deviation, likewise.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        deviation = torch.tensor(std)
        self.register_buffer("scale", (1 / (255 * deviation)).view(1, -1, 1, 1))
        self.register_buffer("shift", (-torch.tensor(mean) / deviation).view(1, -1, 1, 1))

    @property
    def channels(self) -> int:
        """Returns the number of channels of its images."""
        return self.scale.numel()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Returns float32 logits (N, C) of uint8 pixels (N, H, W, channels)."""
        # Cast first: TensorRT's parser rejects a Transpose of uint8. Scale last: in ONNX Runtime,
        # Mul and Add take 15 times as long on NHWC as on NCHW. In torch the permute is a view in
        # channels_last order.
        images = pixels.to(self.scale.dtype).permute(0, 3, 1, 2)
        logits: torch.Tensor = self.backbone(images * self.scale + self.shift)
        return logits.float()
