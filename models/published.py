"""Published ImageNet accuracy of the networks, with sources.

They were measured by the publisher on its weights, in float32, on the 50,000 validation images, and
never on an artifact made here. ``python -m models.published`` takes torchvision's figures for the
weights that the registry downloads, and writes models/published.json.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from core.files import write_whole
from core.names import canonical_name

PUBLISHED_FILE = Path(__file__).with_name("published.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """The published accuracy of a network.

    Attributes:
        top1: fraction in [0, 1], for one centre crop.
        source: name of the weights, or paper and table.
        size: side of the images, in pixels.
        native: whether ``size`` is the network's native size in the registry.
    """

    top1: float
    source: str
    size: int
    native: bool = True


_LITE = "tensorflow/tpu, models/official/efficientnet/lite/README.md"
_V1 = "arXiv 1704.04861, Table 6"
_V2 = "arXiv 1801.04381, Table 4"
_V2_CODE = "tensorflow/models, research/slim/nets/mobilenet/README.md"
_SHUFFLE = "arXiv 1707.01083, Table 2"
_SHUFFLE_WIDE = "arXiv 1707.01083, Table 5"
_TRICKS = "arXiv 1812.01187, Table 5"

# The ShuffleNet papers print error rates; here they are turned into accuracy.
_BY_HAND = {
    # name                    top-1   source
    "efficientnet_lite0": (0.751, _LITE),
    "efficientnet_lite1": (0.767, _LITE),
    "efficientnet_lite2": (0.776, _LITE),
    "mobilenet_v1": (0.706, _V1),
    "mobilenet_v1_x0_75": (0.684, _V1),
    "mobilenet_v1_x0_5": (0.637, _V1),
    "mobilenet_v1_x0_25": (0.506, _V1),
    "mobilenet_v2_x1_4": (0.747, _V2),
    "mobilenet_v2_x0_75": (0.698, _V2_CODE),
    "mobilenet_v2_x0_5": (0.654, _V2_CODE),
    "mobilenet_v2_x0_35": (0.603, _V2_CODE),
    "resnet50_a": (0.7621, _TRICKS),
    "resnet50_b": (0.7666, _TRICKS),
    "resnet50_c": (0.7687, _TRICKS),
    "resnet50_d": (0.7716, _TRICKS),
    "shufflenet_v1_g1": (0.664, _SHUFFLE),
    "shufflenet_v1_g2": (0.673, _SHUFFLE),
    "shufflenet_v1_g3": (0.674, _SHUFFLE),
    "shufflenet_v1_g3_x0_5": (0.568, _SHUFFLE),
    "shufflenet_v1_g3_x1_5": (0.715, _SHUFFLE_WIDE),
    "shufflenet_v1_g3_x2_0": (0.737, _SHUFFLE_WIDE),
    "shufflenet_v1_g4": (0.672, _SHUFFLE),
    "shufflenet_v1_g8": (0.676, _SHUFFLE),
    "shufflenet_v1_g8_x0_5": (0.577, _SHUFFLE),
}

# Sides of their images in pixels; 224 for all others.
_SIZES = {"efficientnet_lite1": 240, "efficientnet_lite2": 260}

_SCALED_HEAD = "torchvision scales the head too, so the paper's figure is of a wider network"
_OTHER_SHUFFLE = "not in the paper; the authors' code shuffles elsewhere, so is another network"
_NOT_IMAGENET = "made for 32x32 images of ten classes"

# Networks of the registry without a published figure, and why.
UNPUBLISHED = {
    "mobilenet_v3_large_x0_75": _SCALED_HEAD,
    "mobilenet_v3_small_x0_75": _SCALED_HEAD,
    "resnet14": _NOT_IMAGENET,
    "resnet14_dense": _NOT_IMAGENET,
    "resnet14_g2": _NOT_IMAGENET,
    "resnet14_g4": _NOT_IMAGENET,
    "resnet14_se": _NOT_IMAGENET,
    "resnet14_separable": _NOT_IMAGENET,
    "se_resnet50": "the paper's has its stride in the first 1x1 convolution, ours in the 3x3",
    "shufflenet_v1_g8_x1_5": _OTHER_SHUFFLE,
    "shufflenet_v1_g8_x2_0": _OTHER_SHUFFLE,
}


def published_top1(name: str) -> Published | None:
    """Returns the published accuracy of network ``name``; None if there is none.

    Args:
        name: registry name or alias; any other name gives None.
    """
    name = canonical_name(name)
    if name in _BY_HAND:
        top1, source = _BY_HAND[name]
        return Published(top1=top1, source=source, size=_SIZES.get(name, 224))
    return _from_torchvision().get(name)


@functools.cache
def _from_torchvision() -> dict[str, Published]:
    rows = json.loads(PUBLISHED_FILE.read_text(encoding="utf-8"))
    return {name: Published(**row) for name, row in rows.items()}


def ask_torchvision() -> dict[str, Published]:
    """Returns torchvision's figures for the weights that the registry downloads, by name."""
    from models.registry import find_model
    from models.torchvision_nets import WITH_WEIGHTS, default_weights

    found = {}
    for name in sorted(WITH_WEIGHTS):
        weights = default_weights(name)
        size = weights.transforms().crop_size[0]
        found[name] = Published(
            top1=round(weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100, 5),
            source=f"torchvision {weights}",
            size=size,
            native=size == find_model(name).native_size,
        )
    return found


def main() -> None:
    """Writes models/published.json: one line per network, sorted by name."""
    found = ask_torchvision()
    lines = [f"{json.dumps(name)}: {json.dumps(asdict(row))}" for name, row in found.items()]
    print(write_whole(PUBLISHED_FILE, ("{\n" + ",\n".join(lines) + "\n}\n").encode()))


if __name__ == "__main__":
    main()
