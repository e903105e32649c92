"""The form of a network that answers: branches that only training needs are merged."""

from __future__ import annotations

from models.classifier import Classifier

_HOOKS = ("fuse", "reparameterize", "switch_to_deploy")  # that timm looks for


def inference_form(network: Classifier) -> Classifier:
    """Returns ``network`` with the parallel branches of its training as one layer each.

    MobileOne, RepVGG, RepViT, FastViT and others train several convolutions and norms beside each
    other, whose sum is one convolution (arXiv 2101.03697, Section 3.3). timm has what merges them;
    a network without such layers is returned as it is, others as a copy in evaluation mode.
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
