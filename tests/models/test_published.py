from __future__ import annotations

from pathlib import Path

import pytest
import torchvision

from models.efficientnet_lite import LITES
from models.published import PUBLISHED_FILE, UNPUBLISHED, ask_torchvision, main, published_top1
from models.registry import find_model, list_models
from models.torchvision_nets import WITH_WEIGHTS


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_torchvision_says_the_same_of_its_weights(name: str) -> None:
    weights = torchvision.models.get_model_weights(name).DEFAULT
    found = published_top1(name)
    assert found is not None
    assert found.top1 == pytest.approx(weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100)
    assert [found.size] == weights.transforms().crop_size
    assert found.source == f"torchvision {weights}"


def test_the_file_is_what_torchvision_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(ask_torchvision()) == sorted(WITH_WEIGHTS)
    monkeypatch.setattr("models.published.PUBLISHED_FILE", tmp_path / "published.json")
    main()
    assert (tmp_path / "published.json").read_bytes() == PUBLISHED_FILE.read_bytes()
    assert capsys.readouterr().out == f"{tmp_path / 'published.json'}\n"


def test_every_network_has_a_figure_or_a_reason_to_have_none() -> None:
    without = {name for name in list_models() if published_top1(name) is None}
    assert without == set(UNPUBLISHED)


@pytest.mark.parametrize("name", sorted(set(list_models()) - set(UNPUBLISHED)))
def test_figures_are_fractions_of_a_known_size(name: str) -> None:
    found = published_top1(name)
    assert found is not None
    assert 0.5 < found.top1 < 0.9  # what ImageNet networks of this house reach; never per cent
    assert found.native == (found.size == find_model(name).native_size)
    assert found.source


def test_weights_that_can_be_fetched_have_a_figure() -> None:
    fetched = {name for name in list_models() if find_model(name).imagenet}
    assert fetched == {*WITH_WEIGHTS, *(lite.name for lite in LITES)}
    assert fetched.isdisjoint(UNPUBLISHED)


def test_an_alias_and_strangers() -> None:
    assert published_top1("mobilenet_v3") == published_top1("mobilenet_v3_large")
    assert published_top1("timm/resnet18") is None
    b2 = published_top1("efficientnet_b2")  # torchvision's weights see 288 x 288
    assert b2 is not None
    assert (b2.size, b2.native) == (288, False)
