from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.models import vision_transformer

from core.errors import UserError
from models.fit_weights import Fitted, fit_weights
from models.saved_weights import read_weights
from models.timm_sketches import similar_networks
from models.weight_places import on_meta

Weights = dict[str, torch.Tensor]
MODEL, CLASSES = "shufflenet_v2_x0_5", 5


@pytest.fixture(scope="module")
def weights() -> Weights:
    torch.manual_seed(1)
    return dict(torchvision.models.get_model(MODEL, num_classes=CLASSES).state_dict())


def fitted(
    content: Any,
    path: Path,
    entry: str | None = None,
    model: str = MODEL,
    size: int | None = None,
) -> Fitted:
    torch.save(content, path / "a.pth")
    return fit_weights(model, read_weights(path / "a.pth"), entry, size)


def under(prefix: str, weights: Weights) -> Weights:
    return {prefix + key: value for key, value in weights.items()}


SHAPES: dict[str, Any] = {
    "": lambda w: w,
    "state_dict": lambda w: {"state_dict": w, "epoch": 3},
    "model.module": lambda w: {"model": under("module.", w)},
    "net": lambda w: {"net": w},
    "0": lambda w: [w, {"epoch": 3}],
    "1.ema": lambda w: ({"epoch": 3}, {"ema": w}),
    "model_state_dict.module._orig_mod": lambda w: {
        "model_state_dict": under("module._orig_mod.", w)
    },
    "state_dict.model.backbone": lambda w: {
        "state_dict": {**under("model.backbone.", w), "loss.weight": torch.ones(3)},
        "hyper_parameters": {"lr": 0.1},
    },
    "model_ema.module": lambda w: {
        "model": w,
        "model_ema": {"n_averaged": torch.tensor(3), **under("module.", w)},
    },
}


@pytest.mark.parametrize("entry", SHAPES)
def test_the_weights_are_found_wherever_they_stand(
    entry: str, weights: Weights, tmp_path: Path
) -> None:
    found = fitted(SHAPES[entry](weights), tmp_path)
    assert (found.place.entry, found.classes) == (entry, CLASSES)
    assert found.others == (("model",) if entry == "model_ema.module" else ())
    torch.testing.assert_close(dict(found.network.state_dict()), weights, rtol=0, atol=0)
    assert not found.network.training
    again = fitted(SHAPES[entry](weights), tmp_path, entry)
    assert again.place == found.place


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(dtype: torch.dtype, weights: Weights, tmp_path: Path) -> None:
    network = fitted({k: v.to(dtype) for k, v in weights.items()}, tmp_path).network
    for key, value in network.state_dict().items():
        assert value.dtype == weights[key].dtype
        if value.is_floating_point():
            torch.testing.assert_close(value, weights[key].to(dtype).float(), rtol=0, atol=0)


def test_safetensors_fit_as_well(weights: Weights, tmp_path: Path) -> None:
    save_file({k: v.contiguous() for k, v in weights.items()}, tmp_path / "a.safetensors")
    found = fit_weights(MODEL, read_weights(tmp_path / "a.safetensors"))
    torch.testing.assert_close(dict(found.network.state_dict()), weights)


def test_counters_that_tools_add_or_leave_out_do_not_matter(
    weights: Weights, tmp_path: Path
) -> None:
    content = {k: v for k, v in weights.items() if "num_batches" not in k}
    content |= {"conv1.total_ops": torch.ones(1), "total_params": torch.ones(1)}
    found = fitted(content, tmp_path).network.state_dict()
    assert all(torch.equal(found[key], value) for key, value in content.items() if key in found)


def test_which_of_two_is_asked(weights: Weights, tmp_path: Path) -> None:
    other = {key: value + 1 for key, value in weights.items()}
    content = {"student": weights, "teacher": under("module.", other)}
    with pytest.raises(UserError, match=r"2 times; .*--entry.*: student, teacher.module"):
        fitted(content, tmp_path)
    network = fitted(content, tmp_path, "teacher").network
    assert torch.equal(network.state_dict()["fc.bias"], other["fc.bias"])
    with pytest.raises(UserError, match="no weights at 'head'"):
        fitted(content, tmp_path, "head")


def test_what_does_not_fit_is_named_with_what_would(weights: Weights, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        fitted(under("module.", weights), tmp_path, model="mobilenet_v2")
    text = str(error.value)
    assert "262 missing (features.0.0.weight, features.0.1.weight, " in text
    assert "they fit --model shufflenet_v2_x0_5" in text
    assert text.count(", ...)") == 2
    assert "\n" not in text


@pytest.fixture
def no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test that looks for another network."""
    monkeypatch.setattr("models.closest_network._candidates", lambda *_: pytest.fail("searched"))


@pytest.mark.usefixtures("no_others")
def test_a_network_without_its_head_is_no_other(weights: Weights, tmp_path: Path) -> None:
    body = {key: value for key, value in weights.items() if not key.startswith("fc.")}
    with pytest.raises(UserError, match=r"2 missing \(fc.weight, fc.bias\); .* without its head"):
        fitted(body, tmp_path)


@pytest.mark.usefixtures("no_others")
@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64, torch.float8_e4m3fn])
def test_a_network_of_another_dtype_is_no_other(
    dtype: torch.dtype, weights: Weights, tmp_path: Path
) -> None:
    content = {key: value.to(dtype) for key, value in weights.items()}
    reason = rf"\(conv1.0.weight is {dtype}.*; apart from that they are of this network: save"
    with pytest.raises(UserError, match=reason):
        fitted(content, tmp_path)


def test_a_network_of_another_width_is_not_the_closest_to_itself(
    weights: Weights,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("models.closest_network._candidates", lambda *_: ["mobilenet_v2"])
    wider = weights | {"conv5.0.weight": torch.zeros(1025, 192, 1, 1)}
    reason = (
        r"1 of another form \(conv5.0.weight is \[1025, 192, 1, 1\] and not \[1024, 192, 1, 1\]"
    )
    with pytest.raises(UserError, match=reason + r"\); no other network here comes closer$"):
        fitted(wider, tmp_path)
    assert "note: looking for a network" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("conv1.0.weight", float("nan"), r"1 of the 648 values of module.conv1.0.weight are NaN"),
        ("fc.bias", float("inf"), "1 of the 5 values of module.fc.bias are NaN or infinite"),
        ("fc.bias", 1e300, "1 of the 5 values of module.fc.bias are NaN or infinite"),
        ("conv1.1.running_var", -1.0, "1 of the 24 values of module.conv1.1.running_var are neg"),
    ],
)
def test_values_that_give_no_finite_logits_are_refused(
    key: str, value: float, reason: str, weights: Weights, tmp_path: Path
) -> None:
    changed = weights[key].double()
    changed.view(-1)[1] = value
    with pytest.raises(UserError, match=reason):
        fitted(under("module.", weights | {key: changed}), tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda w: w[:, :1], r"is \[24, 1, 3, 3\] and not \[24, 3, 3, 3\]"),
        (lambda w: w.to(torch.int8), "is torch.int8"),
        (lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), "is quantized"),
        (lambda w: w.to_sparse(), "is quantized or sparse"),
        (
            lambda w: w[:1, :1, :1, :1].clone().expand(24, 3, 3, 3),
            "has more elements than the file",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning")
@pytest.mark.filterwarnings("ignore:.*TypedStorage:UserWarning")
def test_tensors_of_another_kind_are_refused(
    change: Any, reason: str, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.fit_weights.closest_network", lambda *_: "")
    key = "conv1.0.weight"
    changed = weights | {key: change(weights[key])}
    with pytest.raises(UserError, match=rf"{key} {reason}"):
        fitted(changed, tmp_path)


def test_a_file_without_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no weights"):
        fitted({"epoch": 3}, tmp_path)


VIT = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def vit() -> Weights:
    torch.manual_seed(1)
    return dict(timm.create_model(VIT, num_classes=CLASSES).state_dict())


def test_position_embeddings_are_resampled_to_another_size(vit: Weights, tmp_path: Path) -> None:
    found = fitted({"model": vit}, tmp_path, model=f"timm/{VIT}", size=96)
    assert (found.place.entry, found.classes, found.converted) == ("model", CLASSES, True)
    expected = timm.create_model(VIT, num_classes=CLASSES, img_size=96)
    expected.load_state_dict(vision_transformer.checkpoint_filter_fn(dict(vit), expected))
    images = torch.rand(2, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(found.network(images), expected.eval()(images))


def test_what_timm_does_not_resample_is_one_line(tmp_path: Path) -> None:
    network = timm.create_model("levit_128s", num_classes=CLASSES)  # has tables of attention biases
    with pytest.raises(UserError, match=r"size, of 224 pixels.* leave out --size 256") as error:
        fitted(network.state_dict(), tmp_path, model="timm/levit_128s", size=256)
    assert "attention_biases is [4, 196] and not [4, 256]" in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_that_were_trained_at_the_size_are_taken_as_they_are(tmp_path: Path) -> None:
    network = timm.create_model(VIT, num_classes=CLASSES, img_size=96)
    found = fitted(network.state_dict(), tmp_path, model=f"timm/{VIT}", size=96)
    assert not found.converted
    assert not fitted(network.state_dict(), tmp_path, "", f"timm/{VIT}", 96).converted


def test_weights_of_an_earlier_form_are_converted_as_timm_does(
    vit: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.fit_weights.closest_network", lambda *_: "")  # takes seconds
    old = {**vit, "patch_embed.proj.weight": vit["patch_embed.proj.weight"].flatten(1)}
    found = fitted(old, tmp_path, model=f"timm/{VIT}")
    assert found.converted
    torch.testing.assert_close(dict(found.network.state_dict()), vit, rtol=0, atol=0)
    with pytest.raises(UserError, match="do not fit timm/levit_128s"):
        fitted(old, tmp_path, model="timm/levit_128s")


def test_the_closest_is_found_among_all_of_timm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.closest_network.list_models", lambda: [])
    monkeypatch.setattr("models.torchvision_nets.list_classifiers", lambda: [])
    network = timm.create_model("ghostnet_100", num_classes=CLASSES)
    content = {"state_dict": under("module.net.", network.state_dict())}
    with pytest.raises(UserError, match="they fit --model timm/ghostnet_100"):
        fitted(content, tmp_path, model="resnet14")
    own = {**content["state_dict"], "module.net.neck.weight": torch.zeros(3)}
    with pytest.raises(UserError, match=r"closest is timm/ghostnet_100, with (99|100)%"):
        fitted(own, tmp_path, model="resnet14")


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "efficientvit_m0", "levit_128s"])
def test_the_table_of_timm_is_of_the_timm_that_is_installed(name: str) -> None:
    tensors = on_meta(f"timm/{name}", CLASSES)
    assert similar_networks(tensors, 1) == [f"timm/{name}"]
