"""Zero initialisation of the last batch norm of each residual branch."""

from __future__ import annotations

from torch import nn
from torchvision.models import mobilenetv2, mobilenetv3, resnet
from torchvision.models.efficientnet import FusedMBConv, MBConv

from core.errors import UserError
from models import resnet14, resnet_tweaks


def zero_last_gammas(network: nn.Module) -> int:
    """Zeroes the last batch norm's gamma in every residual branch; returns their number.

    Each block then starts as the identity of its shortcut, which eases the start of training (Bag
    of Tricks, arXiv 1812.01187, Section 3.1). Only branches added to a shortcut count.

    Raises:
        UserError: the network has no residual branch that ends in a batch norm.
    """
    norms = [norm for block in network.modules() if (norm := _last_norm(block)) is not None]
    if not norms:
        raise UserError(
            "zero_gamma is true: this network has no residual branch that ends in a batch norm; "
            "set it to false"
        )
    for norm in norms:
        nn.init.zeros_(norm.weight)
    return len(norms)


def _last_norm(block: nn.Module) -> nn.BatchNorm2d | None:
    match block:
        case resnet_tweaks.Bottleneck() | resnet14.BasicBlock():
            return _norm_in(block.branch)
        case resnet.Bottleneck():
            return _norm_in(block.bn3)
        case mobilenetv2.InvertedResidual() if block.use_res_connect:
            return _norm_in(block.conv)
        case mobilenetv3.InvertedResidual() | MBConv() | FusedMBConv() if block.use_res_connect:
            return _norm_in(block.block)
    return None


def _norm_in(branch: nn.Module) -> nn.BatchNorm2d:
    norms = [layer for layer in branch.modules() if isinstance(layer, nn.BatchNorm2d)]
    return norms[-1]
