from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
import tyro
from PIL import Image
from torch import nn

from artifact.artifact import Artifact
from artifact.records import Reading
from artifact.runtimes.base import load_runtime
from core.errors import UserError
from core.preprocess import Preprocess
from export.__main__ import Run
from export.build import Options, build_artifacts
from export.elsewhere import Elsewhere
from export.foreign import load_foreign
from export.rebuild import rebuild
from export.samples import photos, stack
from models.classifier import IMAGENET_STD, Classifier
from models.weights import settle_batch_norm
from training.checkpoint import KEY

CLASSES = ("cat", "dog", "eel", "fox", "gnu")
SIZE = 64
Command = Callable[..., Any]


def settled(network: nn.Module, **form: Any) -> nn.Module:
    """Returns ``network`` with batch norms that make a difference.

    Their statistics are those of the very photos it is compared on: where others give larger
    activations, the order of sums alone changes logits of untrained networks by more than 1e-4.
    """
    torch.manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.bias, std=0.2)
    pixels = stack(photos()[1], Preprocess(resize=SIZE, crop=SIZE))
    settle_batch_norm(Classifier(network, **form), [torch.from_numpy(pixels)])
    return network.eval()


def answers(network: nn.Module, pixels: Any, mean: Any, std: Any) -> Any:
    """Returns the logits of the original network, prepared as its own library does it."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    normalize = torchvision.transforms.Normalize(mean, std)
    with torch.inference_mode():
        return network(normalize(images)).numpy()


def labels_file() -> str:
    Path("labels.txt").write_text("\n".join(CLASSES))
    return "labels.txt"


def exported(folder: str, target: str = "onnx-fp32") -> Artifact:
    return Artifact.load(Path("artifacts", folder, target))


@pytest.fixture(scope="module")
def small() -> nn.Module:
    network: nn.Module = torchvision.models.mobilenet_v3_small(num_classes=len(CLASSES))
    return settled(network)


def slow(*names: str) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize(
    "model",
    [
        "mobilenet_v2",
        "timm/test_resnet",
        "torchvision/resnet18",
        *slow(
            "mobilenet_v3_small",
            "mobilenet_v3_large",
            "shufflenet_v2_x1_0",
            "efficientnet_b0",
            "efficientnet_v2_s",
            "resnet50",
            "densenet121",
            "resnext50_32x4d",
            "torchvision/mnasnet0_5",
            "torchvision/convnext_tiny",
            "torchvision/googlenet",
            "timm/mobilenetv2_100",
            "timm/mobilenetv3_small_100",
            "timm/mobilenetv3_large_100",
            "timm/efficientnet_b0",
            "timm/tf_efficientnetv2_s",
            "timm/resnet50",
            "timm/densenet121",
            "timm/resnext50_32x4d",
        ),
    ],
)
def test_logits_are_those_of_the_original_network(model: str, here: Path, command: Command) -> None:
    source, _, name = model.rpartition("/")
    if source == "timm":
        network = timm.create_model(name, num_classes=len(CLASSES))
    else:
        options = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
        network = torchvision.models.get_model(name, num_classes=len(CLASSES), **options)
    network = settled(network, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 90}, "model_best.pth.tar")
    flags = (
        f"--checkpoint model_best.pth.tar --labels {labels_file()} --size {SIZE} --mean 0.5 0.4 0.3"
    )
    ended = command(
        "export", "run", "--model", model, *flags.split(), "--std", "0.2", "--max-batch", "8",
        "--formats", "onnx-fp32",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr + ended.stdout
    artifact = exported(f"{model}-model_best")
    assert artifact.labels == CLASSES
    assert artifact.preprocess.crop == SIZE
    pixels, _ = artifact.golden()
    expected = answers(network, pixels, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    with load_runtime("ort-cpu", artifact) as runtime:
        logits = runtime(pixels)
    largest = np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 0.1 * largest  # images make a difference
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * largest)


def test_the_artifact_says_where_it_came_from_and_is_made_and_verified_again(
    small: nn.Module, here: Path, command: Command
) -> None:
    torch.save({"model": small.state_dict(), "model_ema": small.state_dict()}, "best.pth")
    flags = f"--checkpoint best.pth --labels {labels_file()} --size {SIZE} --name pets"
    ended = command(
        "export", "run", "--model", "mobilenet_v3_small", *flags.split(), "--formats", "onnx-fp32"
    )
    assert ended.returncode == 0, ended.stderr
    told = " ".join(ended.stderr.split())
    assert "assumed: the weights are those of model_ema, not of model" in told
    assert "resize 73, interpolation bilinear, crop_mode center, mean 0.485 0.456 0.406" in told
    artifact = exported("mobilenet_v3_small-pets")
    source = artifact.source
    assert (source.checkpoint, source.data) == ("best.pth", None)
    assert isinstance(source.reading, Reading)
    assert source.reading.entry == "model_ema"
    assert [words in told for words in source.reading.assumed] == [True, True]
    again = tyro.cli(Run, args=shlex.split(artifact.rebuild_command)[4:])
    assert again.model == "mobilenet_v3_small"
    assert again.elsewhere == Elsewhere(
        checkpoint=Path("best.pth"), labels="labels.txt", size=SIZE, name="pets"
    )
    pixels, logits = artifact.golden()
    with torch.inference_mode():
        rebuilt = rebuild(artifact)(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(rebuilt, logits, atol=1e-4)
    verified = command("export", "verify", str(artifact.path))
    assert "passed, against torch, weights of best.pth" in verified.stdout
    with load_runtime("torch", artifact) as runtime:  # as bench does
        np.testing.assert_allclose(runtime(pixels), logits, atol=1e-4)
    Path("best.pth").write_bytes(b"")
    with pytest.raises(UserError, match=r"changed since .* remove .* python -m export run"):
        rebuild(artifact)
    assert "golden batch" in command("export", "verify", str(artifact.path)).stdout


def folder_of_images(path: Path, classes: tuple[str, ...]) -> Path:
    random = np.random.default_rng(0)
    for name in classes:
        (path / name).mkdir(parents=True)
        for index in range(12):
            pixels = random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path / name / f"{index}.png")
    return path


def test_images_of_the_user_calibrate_and_prove_it(
    small: nn.Module, here: Path, command: Command
) -> None:
    torch.save(small.state_dict(), "best.pth")
    Path("labels.json").write_text(json.dumps(["zebra", *CLASSES[1:]]))
    data = folder_of_images(here / "my pets", CLASSES[1:4])  # not all of them, and of other numbers
    flags = shlex.split(
        f"--model mobilenet_v3_small --checkpoint best.pth --labels labels.json --data '{data}' "
        f"--entry '' --size {SIZE} --resize 70 --interpolation bicubic --crop-mode squash "
        "--mean 0.485 0.4 0.3 --std 0.1 --name cats --formats onnx-fp32 --max-batch 4 "
        "--max-drop 0.3"
    )
    ended = command("export", "run", *flags)
    artifact = exported("mobilenet_v3_small-cats")
    assert artifact.source.data == str(data)
    again = tyro.cli(Run, args=shlex.split(artifact.rebuild_command)[4:])
    assert again == tyro.cli(Run, args=flags)  # nothing of it is lost
    assert artifact.metrics is not None
    assert artifact.metrics.top1 == artifact.metrics.torch_top1
    network = load_foreign("mobilenet_v3_small", str(data), again.elsewhere)
    assert {label for _, label in network.held_out} == {1, 2, 3}
    files = [image for image, _ in network.calibration if isinstance(image, Path)]
    assert [CLASSES.index(file.parent.name) for file in files] == [
        label for _, label in network.calibration
    ]
    told = " ".join(ended.stderr.split())
    assert "whether the network was trained on some of its images" in told
    assert told.count("cannot be told from chance") == 1
    assert "labels in another order" in told


def test_classes_of_a_folder_name_those_of_the_network(small: nn.Module, here: Path) -> None:
    torch.save(small.state_dict(), "best.pth")
    data = str(folder_of_images(here / "pets", CLASSES))
    network = load_foreign("mobilenet_v3_small", data, Elsewhere(checkpoint=Path("best.pth")))
    assert network.labels == CLASSES
    assert network.source.reading is not None
    assert any("cat, dog, eel" in words for words in network.source.reading.assumed)


TIMM_ARGS = {
    "model": "mobilenetv3_small_100",
    "img_size": None,
    "input_size": (3, 128, 128),
    "crop_pct": 0.95,
    "crop_mode": None,
    "mean": [0.5],
    "std": [0.5, 0.4, 0.3],
    "interpolation": "bilinear",
}
REFERENCE_ARGS = {
    "model": "mobilenet_v3_small",
    "val_resize_size": 232,
    "val_crop_size": 200,
    "interpolation": "bicubic",
}


@pytest.mark.parametrize(
    ("model", "args", "form"),
    [
        ("timm/mobilenetv3_small_100", TIMM_ARGS, (134, 128, "bilinear", (0.5, 0.4, 0.3))),
        ("mobilenet_v3_small", REFERENCE_ARGS, (232, 200, "bicubic", IMAGENET_STD)),
        ("timm/mobilenetv3_small_100", {}, (256, 224, "bicubic", IMAGENET_STD)),
        ("timm/mobilenetv3_small_100", {"mean": None}, (256, 224, "bicubic", IMAGENET_STD)),
        ("timm/tf_mobilenetv3_small_100", {}, (256, 224, "bilinear", (0.5, 0.5, 0.5))),
        ("torchvision/googlenet", {}, (256, 224, "bilinear", (0.5, 0.5, 0.5))),
    ],
)
def test_preprocessing_is_what_the_file_or_else_its_publisher_says(
    model: str, args: dict[str, Any], form: Any, here: Path
) -> None:
    source, _, name = model.rpartition("/")
    if source == "timm":
        network = timm.create_model(name, num_classes=5)
    elif name == "googlenet":
        network = torchvision.models.googlenet(num_classes=5, aux_logits=False, init_weights=False)
    else:
        network = torchvision.models.get_model(name, num_classes=5)
    content = {"state_dict": network.state_dict(), "args": argparse.Namespace(**args)}
    torch.save(content, "last.pth.tar")
    read = load_foreign(
        model, None, Elsewhere(checkpoint=Path("last.pth.tar"), labels=labels_file())
    )
    preprocess, reading = read.preprocess, read.source.reading
    assert reading is not None
    assert (preprocess.resize, preprocess.crop, preprocess.interpolation) == form[:3]
    assert reading.std == pytest.approx(form[3])
    assert len(reading.assumed) == 1
    scale = read.module.scale.flatten() * 255
    torch.testing.assert_close(scale, 1 / torch.tensor(form[3]))


def test_flags_come_first_and_then_nothing_is_assumed(small: nn.Module, here: Path) -> None:
    torch.save(small.state_dict(), "best.pth")
    given = Elsewhere(
        checkpoint=Path("best.pth"),
        labels=labels_file(),
        size=96,
        resize=100,
        interpolation="bicubic",
        crop_mode="border",
        mean=(0.5,),
        std=(0.25,),
    )
    network = load_foreign("mobilenet_v3_small", None, given)
    preprocess, reading = network.preprocess, network.source.reading
    assert (preprocess.crop, preprocess.resize, preprocess.fill) == (96, 100, (128, 128, 128))
    assert reading is not None
    assert (reading.mean, reading.std, reading.assumed) == ((0.5,) * 3, (0.25,) * 3, ())


def test_equal_names_get_their_index_and_a_border_is_told(small: nn.Module, here: Path) -> None:
    torch.save(small.state_dict(), "best.pth")
    Path("twice.txt").write_text("rose\ndaisy\nfern\ndaisy\nrose")
    given = Elsewhere(
        checkpoint=Path("best.pth"), labels="twice.txt", size=(96, 64), resize=(50, 80)
    )
    network = load_foreign("mobilenet_v3_small", None, given)
    assert network.labels == ("rose (0)", "daisy (1)", "fern", "daisy (3)", "rose (4)")
    assert network.source.reading is not None
    _, border, names = network.source.reading.assumed
    assert "resize 50x80 is smaller than size 96x64" in border
    assert "'rose', and get their index: rose (0), rose (4), and 1 more likewise" in names
    for change in ({"resize": (96, 64)}, {"crop_mode": "border"}):
        told = load_foreign("mobilenet_v3_small", None, replace(given, **change)).source.reading
        assert told is not None
        assert not any("border, as" in words for words in told.assumed)


ASKED = {
    "labels": ({"labels": None}, "nothing names the 5 classes"),
    "count": ({"labels": "imagenet"}, r"1,000 names, but .* tells 5 classes.* one name a line"),
    "mean": ({"mean": (123.7, 116.3, 103.5)}, "divide by 255"),
    "std": ({"std": (0.0,)}, r"--std 0: .* above 0 and at most 1, for pixels in \[0, 1\]$"),
    "two": ({"mean": (0.5, 0.5)}, "2 numbers"),
    "name": ({"name": "../pets"}, "--name '../pets'"),
    "taken": ({"name": "Digits"}, "name Digits is taken"),
    "size": ({"size": 0}, "size is 0"),
    "missing": ({"checkpoint": Path("none.pth")}, "there is no file none.pth"),
}


@pytest.mark.parametrize("name", ASKED)
def test_what_is_not_known_or_wrong_is_one_line(name: str, small: nn.Module, here: Path) -> None:
    changes, reason = ASKED[name]
    torch.save(small.state_dict(), "best.pth")
    given = Elsewhere(checkpoint=Path("best.pth"), labels=labels_file())
    with pytest.raises(UserError, match=reason) as error:
        load_foreign("mobilenet_v3_small", None, replace(given, **changes))
    assert "\n" not in str(error.value)


def test_preprocessing_that_nobody_published_is_asked_for(here: Path) -> None:
    torch.save(
        torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.35).state_dict(), "a.pth"
    )
    given = Elsewhere(checkpoint=Path("a.pth"), labels=labels_file(), size=64, mean=(0.5,))
    with pytest.raises(UserError, match="--resize --interpolation --std, as in training") as error:
        load_foreign("mobilenet_v2_x0_35", None, given)
    assert "--mean 0.485 0.456 0.406 --std 0.229 0.224 0.225" in str(error.value)
    whole = replace(given, resize=64, interpolation="bilinear", std=(0.5,))
    network = load_foreign("mobilenet_v2_x0_35", None, whole)
    assert network.preprocess.crop_mode == "center"


def test_args_that_make_no_sense_are_one_line(here: Path) -> None:
    network = timm.create_model("mobilenetv3_small_100", num_classes=5)
    args = argparse.Namespace(model="mobilenetv3_small_100", mean="many", crop_pct="all")
    torch.save({"state_dict": network.state_dict(), "args": args}, "a.pth")
    given = Elsewhere(checkpoint=Path("a.pth"), labels=labels_file())
    with pytest.raises(UserError, match="its args do not say how images are prepared"):
        load_foreign("timm/mobilenetv3_small_100", None, given)


def test_folders_of_classes_it_does_not_know(small: nn.Module, here: Path) -> None:
    torch.save(small.state_dict(), "best.pth")
    data = str(folder_of_images(here / "pets", ("cat", "yak")))
    given = Elsewhere(checkpoint=Path("best.pth"), labels=labels_file())
    with pytest.raises(UserError, match="1 class that is not among the network's, such as yak"):
        load_foreign("mobilenet_v3_small", data, given)


def test_artifacts_of_other_weights_are_not_replaced(here: Path) -> None:
    tiny = settled(timm.create_model("test_resnet", num_classes=len(CLASSES)))
    torch.save(tiny.state_dict(), "best.pth")
    given = Elsewhere(checkpoint=Path("best.pth"), labels=labels_file(), size=SIZE)
    network = load_foreign("timm/test_resnet", None, given)
    (outcome,) = build_artifacts(network, ["onnx-fp32"], Options(max_batch=2))
    assert outcome.artifact is not None
    before = (outcome.artifact.path / "manifest.json").read_bytes()
    load_foreign("timm/test_resnet", None, given)  # the same again is no matter
    for change, words in (
        ({"size": 96}, f"--size {SIZE}, not 96"),
        ({"resize": 80}, "--resize 67, not 80"),
        ({"mean": (0.4,)}, r"--mean 0.5 0.5 0.5, not 0.4 0.4 0.4"),
        ({"crop_mode": "squash"}, "--crop-mode center, not squash"),
    ):
        with pytest.raises(UserError, match=rf"same file, read otherwise \({words}\).* --name"):
            load_foreign("timm/test_resnet", None, replace(given, **change))
        load_foreign("timm/test_resnet", None, replace(given, name="pets", **change))
    Path("other.txt").write_text("\n".join(("cat", "yak", *CLASSES[2:])))
    relabelled = replace(given, labels="other.txt")
    with pytest.raises(UserError, match=r"\(--labels with class 1 as 'dog', not 'yak'\).* --name"):
        load_foreign("timm/test_resnet", None, relabelled)
    load_foreign("timm/test_resnet", None, replace(relabelled, name="pets"))
    Path("other").mkdir()
    torch.save({key: value + 1 for key, value in tiny.state_dict().items()}, "other/best.pth")
    again = Path("other/best.pth")
    other = replace(given, checkpoint=again)
    with pytest.raises(UserError, match=r"onnx-fp32 is of other weights \(best.pth\).* --name"):
        load_foreign("timm/test_resnet", None, other)
    load_foreign("timm/test_resnet", None, replace(other, name="pets"))
    again.replace("best.pth")  # trained on, in the same place
    with pytest.raises(UserError, match=r"\(an earlier best.pth\).* --name, or remove artifacts/"):
        load_foreign("timm/test_resnet", None, given)
    assert (outcome.artifact.path / "manifest.json").read_bytes() == before


def test_a_checkpoint_of_this_project_has_a_way_of_its_own(here: Path) -> None:
    torch.save({KEY: {"confusion": torch.ones(2, 2)}, "state_dict": {}}, "checkpoint.ckpt")
    given = Elsewhere(checkpoint=Path("checkpoint.ckpt"))
    with pytest.raises(UserError, match="a checkpoint of this project"):
        load_foreign("mobilenet_v3", None, given)


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (Run(model="resnet50", elsewhere=Elsewhere(mean=(0.5,))), "--mean says how to read"),
        (Run(model="all", elsewhere=Elsewhere(checkpoint=Path("a"))), "leave out --model all"),
        (
            Run(model="resnet50", weights="random", elsewhere=Elsewhere(checkpoint=Path("a"))),
            "leave out --weights random",
        ),
    ],
)
def test_flags_that_contradict_each_other(run: Run, reason: str, here: Path) -> None:
    with pytest.raises(UserError, match=reason):
        run()
