from __future__ import annotations

import dataclasses
import sys

import pytest
import timm
import torch
from huggingface_hub import constants

from core.errors import UserError
from core.preprocess import Preprocess
from export.network import load_network
from models.imagenet import ImageNetWeights, WeightsUnavailable
from models.registry import build_model, find_model
from models.timm_nets import published_form, published_labels
from models.weights import imagenet_classifier, load_imagenet_weights
from training.networks import load_teacher


def test_whatever_timm_knows_goes_by_its_name() -> None:
    with torch.device("meta"):
        network = build_model("timm/mobilenetv4_conv_small", num_classes=3).eval()
        assert network(torch.zeros(1, 3, 96, 96)).shape == (1, 3)
    assert find_model("timm/mobilenetv4_conv_small").native_size == 224


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("mobilenetv4_conv_small", "mobilenet_v4"),
        ("tf_mobilenetv3_large_075", "mobilenet_v3"),
        ("mobilenetv2_100", "mobilenet_v2"),  # timm builds these in its file of EfficientNets
        ("efficientnet_b0.ra_in1k", "efficientnet"),
        ("resnet18", "resnet"),
        ("vit_tiny_patch16_224", "vision_transformer"),
    ],
)
def test_networks_of_timm_are_of_many_families(name: str, family: str) -> None:
    assert find_model(f"timm/{name}").family == family


def test_unknown_to_timm() -> None:
    with pytest.raises(UserError, match=r"unknown model 'timm/mobilenetv2_10': did you mean"):
        build_model("timm/mobilenetv2_10")
    with pytest.raises(UserError, match=r"unknown model 'timm/qqqqqqqq': none of \d+ is close"):
        build_model("timm/qqqqqqqq")


def test_without_timm_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"timm is not installed .*; pip install '\.\[timm\]'"):
        build_model("timm/resnet18")


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("timm.create_model", unreachable)
    with pytest.raises(UserError, match=r"timm/resnet18: .* cannot be fetched \(no network\)"):
        load_imagenet_weights("timm/resnet18")


def test_a_network_nobody_published_weights_for() -> None:
    with pytest.raises(UserError, match="mobilenet_v2_x0_35: nobody published ImageNet weights"):
        load_imagenet_weights("mobilenet_v2_x0_35")


def test_an_unknown_network_is_answered_with_names_that_work() -> None:
    for typed, meant in (
        ("timm/mobilenetv4_conv_smal", "timm/mobilenetv4_conv_small "),
        ("mobilenetv4_conv_smal", "timm/mobilenetv4_conv_small "),
        ("mobilenetv4_conv_small", r"timm/mobilenetv4_conv_small\?"),
        ("resnet18.a1_in1k", r"timm/resnet18.a1_in1k\?"),
        ("resnet18", r"torchvision/resnet18 or timm/resnet18\?"),
    ):
        with pytest.raises(UserError, match=f"unknown model '{typed}': did you mean {meant}"):
            find_model(typed)


def test_without_timm_only_our_own_networks_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"'resnet26': did you mean resnet\w+( or resnet\w+)*\?$"):
        find_model("resnet26")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "resnet18.a1_in1",
            "unknown weights 'a1_in1' of timm/resnet18: did you mean timm/resnet18.a",
        ),
        ("resnet18.qq", "unknown weights 'qq' of timm/resnet18: there are timm/resnet18.a1_in1k, "),
        ("botnet50ts_256.a1", "unknown weights 'a1' of timm/botnet50ts_256: nobody published any"),
    ],
)
def test_a_name_that_cannot_be_is_one_line(name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        find_model(f"timm/{name}")
    assert "\n" not in str(caught.value)


def test_every_published_tag_has_a_form_and_classes_or_one_line() -> None:
    without, numbered = [], []
    for tag in timm.list_pretrained():
        config = timm.get_pretrained_cfg(tag)
        assert find_model(f"timm/{tag}").imagenet is not None
        form = published_form(timm.data.resolve_data_config(pretrained_cfg=config.to_dict()))
        assert form.preprocess.size == config.input_size[1:]
        assert form.preprocess.crop_mode == config.crop_mode
        labels = published_labels(tag, config.num_classes)
        if not labels:
            without.append((tag, config.num_classes))
        elif labels[0] == "class 0":
            numbered.append((tag, config.num_classes))
        assert len(labels) in (0, config.num_classes)
    assert {classes for _, classes in without} == {0, 384, 512, 640, 768, 1024, 1152, 1280}
    assert numbered == [
        ("mvitv2_base_cls.fb_inw21k", 19168),
        ("mvitv2_huge_cls.fb_inw21k", 19168),
        ("mvitv2_large_cls.fb_inw21k", 19168),
        ("vit_base_patch16_224.bamboo", 115217),
    ]


@pytest.mark.parametrize(
    ("classes", "first"),
    [
        (1000, "tench"),
        (11221, "benthos"),
        (11821, "benthos"),
        (21841, "organism, being"),
        (21842, "tench, Tinca tinca"),
        (21843, "organism, being"),
        (7, "class 0"),
    ],
)
def test_labels_are_those_of_the_part_of_imagenet(classes: int, first: str) -> None:
    labels = published_labels("resnet18", classes)
    assert (len(labels), labels[0]) == (classes, first)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Returns what timm now gets from the hub, whatever it asks for: fill it first."""
    published: dict[str, torch.Tensor] = {}
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: published)
    return published


def publish(hub: dict[str, torch.Tensor], name: str, classes: int) -> None:
    torch.manual_seed(0)
    hub.update(timm.create_model(name, num_classes=classes).state_dict())


def test_weights_of_more_classes_than_a_thousand(hub: dict[str, torch.Tensor]) -> None:
    name = "tiny_vit_5m_224.dist_in22k"
    publish(hub, name, 21841)
    weights = load_imagenet_weights(f"timm/{name}")
    assert len(weights.labels) == 21841
    whole = imagenet_classifier(f"timm/{name}", weights).backbone.state_dict()
    assert all(torch.equal(whole[key], value) for key, value in hub.items())
    tuned = imagenet_classifier(f"timm/{name}", weights, ("a", "b")).backbone.state_dict()
    assert tuned["head.fc.weight"].shape[0] == 2
    assert torch.equal(tuned["patch_embed.conv1.conv.weight"], hub["patch_embed.conv1.conv.weight"])


def test_an_embedding_can_be_trained_on_and_gives_no_answers(
    hub: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "timm/vit_xsmall_patch16_clip_224.tinyclip_yfcc15m"
    publish(hub, name.removeprefix("timm/"), 512)
    weights = load_imagenet_weights(name)
    assert weights.labels == ()
    for module in ("export.network", "training.networks"):
        monkeypatch.setattr(f"{module}.load_imagenet_weights", lambda _: weights)
    with pytest.raises(UserError, match=r"end in features, not .*\(make train MODEL=timm/vit"):
        load_network(name, None)
    with pytest.raises(UserError, match="end in features, not in classes"):
        load_teacher(name, ("a", "b", "c"), (32,))
    tuned = imagenet_classifier(name, weights, ("a", "b", "c"))
    assert tuned.backbone.state_dict()["head.weight"].shape[0] == 3


def test_outputs_without_names_are_numbered_and_said(
    hub: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(timm.get_pretrained_cfg("resnet10t.c3_in1k"), num_classes=7)
    monkeypatch.setattr("timm.models._builder.resolve_pretrained_cfg", lambda *_, **__: config)
    publish(hub, "resnet10t", 7)
    weights = load_imagenet_weights("timm/resnet10t.c3_in1k")
    assert weights.labels == tuple(f"class {index}" for index in range(7))
    assert weights.origin == "timm resnet10t.c3_in1k (timm names none of its 7 outputs)"


def test_weights_that_do_not_fit_are_one_line() -> None:
    weights = ImageNetWeights(
        state_dict={"unknown": torch.zeros(1)},
        labels=("a", "b"),
        preprocess=Preprocess(resize=32, crop=32),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        origin="made here",
    )
    with pytest.raises(WeightsUnavailable, match="do not fit a network of 2 classes") as caught:
        imagenet_classifier("timm/resnet10t", weights)
    assert "\n" not in str(caught.value)
