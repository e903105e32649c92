"""Structural reparameterization: merges parallel branches that only training needs."""

from __future__ import annotations

from models.classifier import Classifier

_HOOKS = ("fuse", "reparameterize", "switch_to_deploy")  # methods that timm calls to merge


def inference_form(network: Classifier) -> Classifier:
    """Returns ``network`` with parallel branches merged into one layer each.

    MobileOne, RepVGG, RepViT, FastViT and others train parallel convolutions and norms whose sum
    is one convolution (arXiv 2101.03697, Section 3.3); timm implements the merge. A network without
    such layers is returned itself, any other as a copy in evaluation mode.
    """
    layers = network.backbone.modules()
    if not any(
        type(layer).__module__.startswith("timm.") and any(hasattr(layer, hook) for hook in _HOOKS)
        for layer in layers
    ):
        return network
    from timm.models import reparameterize_model

    merged = reparameterize_model(network.eval())
    assert isinstance(merged, Classifier)
    return merged
