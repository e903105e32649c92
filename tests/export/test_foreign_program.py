from __future__ import annotations

import functools
import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.ao.quantization.fx._decomposed  # names its operators
from torch import nn

from artifact.artifact import Artifact
from artifact.golden import relative_error
from artifact.runtimes.base import load_runtime
from core.errors import UserError
from export.elsewhere import Elsewhere
from export.foreign import load_foreign
from export.rebuild import rebuild
from models.saved_weights import read_weights

SIDE, CLASSES = 16, ("cat", "dog", "eel")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
FLAGS = (
    "--labels labels.txt --resize 18 --interpolation bilinear --mean 0.5 0.4 0.3 --std 0.2 0.25 0.3"
)
Command = Callable[..., Any]


class Small(nn.Module):
    """A classifier of three classes: ``last``, of images (N, H, W, 3); ``end`` is at its end."""

    def __init__(self, *, last: bool = False, end: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(8 * 7 * 7, len(CLASSES))
        self.last, self.end = last, end or nn.Identity()

    def forward(self, images: torch.Tensor) -> Any:
        images = images.permute(0, 3, 1, 2).contiguous() if self.last else images
        maps = self.norm(self.conv(images)).relu()
        return self.end(self.head(self.dropout(maps.view(maps.shape[0], -1))))


class Mixing(Small):
    def forward(self, images: torch.Tensor) -> Any:
        logits = super().forward(images)
        return logits - logits.mean(0)


class Two(Small):
    def forward(self, images: torch.Tensor) -> Any:
        return super().forward(images), images


class Quantized(Small):
    """The logits of :class:`Small` by way of int8, as torchao's ``convert_pt2e`` writes it."""

    def forward(self, images: torch.Tensor) -> Any:
        int8 = (0.1, 0, -128, 127, torch.int8)
        values = torch.ops.quantized_decomposed.quantize_per_tensor(super().forward(images), *int8)
        return torch.ops.quantized_decomposed.dequantize_per_tensor(values, *int8)


class Exp(nn.Module):
    def forward(self, logits: torch.Tensor) -> Any:
        return logits.log_softmax(1).exp()


def save(
    network: nn.Module, *, batch: int | None = None, size: tuple[int, ...] = (), train: bool = False
) -> Path:
    """Returns a file with ``network`` exported for ``batch`` images; None for any number."""
    shape = size or ((SIDE, SIDE, 3) if getattr(network, "last", False) else (3, SIDE, SIDE))
    free = ({0: torch.export.Dim("batch")},) if batch is None else None
    example = (torch.rand(batch or 2, *shape),)
    program = torch.export.export(network.train(train), example, dynamic_shapes=free)
    torch.export.save(program, "net.pt2")
    return Path("net.pt2")


@functools.cache
def _plain() -> bytes:
    return save(Small()).read_bytes()


def save_plain() -> Path:
    """Returns a file with :class:`Small` exported for any number of images."""
    path = Path("net.pt2")
    path.write_bytes(_plain())
    return path


@pytest.fixture
def labels(here: Path) -> Path:
    path = here / "labels.txt"
    path.write_text("\n".join(CLASSES))
    return path


def given(**changes: Any) -> Elsewhere:
    form: dict[str, Any] = {"resize": 18, "interpolation": "bilinear", "mean": MEAN, "std": STD}
    return Elsewhere(**{"program": Path("net.pt2"), "labels": "labels.txt", **form, **changes})


@pytest.mark.usefixtures("labels")
@pytest.mark.parametrize(
    ("network", "batch", "assumed"),
    [
        (Small(), None, ""),
        (Small(), 1, ""),
        (Small(), 2, ""),
        (Small(last=True), None, ""),
        (Small(last=True), 1, ""),
        (Small(end=nn.Softmax(1)), None, "what the Softmax"),
        (Small(end=nn.Softmax(1)), 1, "what the Softmax"),
        (Small(end=nn.LogSoftmax(1)), None, ""),
        (Small(end=Exp()), None, "probabilities, and their logarithm"),
        (Small(end=Exp()), 2, "probabilities, and their logarithm"),
    ],
)
def test_scores_are_those_of_the_network_that_was_exported(
    network: Small, batch: int | None, assumed: str, here: Path, command: Command
) -> None:
    path = save(network, batch=batch)
    ended = command(
        "export", "run", "--model", "own", "--program", str(path), *FLAGS.split(),
        "--formats", "onnx-fp32",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert (assumed in ended.stderr) if assumed else ("assumed" not in ended.stderr)
    artifact = Artifact.load(Path("artifacts/own-net/onnx-fp32"))
    assert artifact.parity is not None
    assert artifact.parity.reference == "torch"
    assert artifact.shape_nodes == 0
    pixels = np.random.default_rng(1).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    images = torch.from_numpy((pixels / np.float32(255) - np.float32(MEAN)) / np.float32(STD))
    with torch.inference_mode():
        images = images if network.last else images.permute(0, 3, 1, 2).contiguous()
        answers = network.eval()(images)
    scored = isinstance(network.end, nn.Softmax | Exp)
    expected = (answers if scored else answers.softmax(1)).numpy()
    assert np.ptp(expected, axis=0).max() > 1e-3
    for name in ("ort-cpu", "torch"):
        with load_runtime(name, artifact) as runtime:
            scores = torch.from_numpy(runtime(pixels)).softmax(1).numpy()
        np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.usefixtures("labels")
@pytest.mark.parametrize("batch", [None, 1])
def test_it_goes_to_int8_and_fp16_and_is_verified_again(
    batch: int | None, here: Path, command: Command
) -> None:
    path = save(Small(), batch=batch)
    flags = ["--model", "own", "--program", str(path), *FLAGS.split(), "--name", "pets"]
    targets = ("onnx-fp32", "onnx-fp16", "onnx-int8")
    ended = command("export", "run", *flags, "--formats", *targets)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    for target in targets:
        artifact = Artifact.load(Path("artifacts/own-pets") / target)
        pixels, logits = artifact.golden()
        with load_runtime("ort-cpu", artifact) as runtime:
            assert relative_error(runtime(pixels), logits) < 1e-3
    verified = command("export", "verify", "artifacts/own-pets/onnx-int8")
    assert "passed, against torch, the program net.pt2" in verified.stdout, verified.stderr
    path.write_bytes(path.read_bytes() + b"0")
    with pytest.raises(UserError, match="changed since"):
        rebuild(artifact)


@pytest.mark.usefixtures("labels")
def test_any_size_where_it_is_free() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    sides = dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO)
    program = torch.export.export(network, (torch.rand(2, 3, 8, 8),), dynamic_shapes=(sides,))
    torch.export.save(program, "net.pt2")
    with pytest.raises(UserError, match="give --size, as in training"):
        load_foreign("own", None, given())
    found = load_foreign("own", None, given(size=24))
    assert found.preprocess.crop == 24
    assert found.module(torch.zeros(3, 24, 24, 3, dtype=torch.uint8)).shape == (3, 3)


@pytest.mark.usefixtures("labels")
def test_a_program_of_several_labels(here: Path) -> None:
    save(Small(end=nn.Sigmoid()))
    found = load_foreign("own", None, given())
    assert found.answering.task == "multi"
    pixels = torch.randint(256, (3, SIDE, SIDE, 3), dtype=torch.uint8)
    save(Small())
    plain = load_foreign("own", None, given(multi_label=True))
    torch.testing.assert_close(found.module(pixels), plain.module(pixels))
    assert plain.answering == found.answering


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no file": (lambda: None, "there is no file"),
    "text": (lambda: Path("net.pt2").write_text("hello"), "not a whole exported program"),
    "cut": (
        lambda: Path("net.pt2").write_bytes(save_plain().read_bytes()[:-2000]),
        "not a whole exported program|not of torch.export.save",
    ),
    "weights": (lambda: torch.save(Small().state_dict(), "net.pt2"), "torch.export.save"),
    "two outputs": (lambda: save(Two()), "one input and one output"),
    "half": (lambda: save(nn.Identity(), size=(3, 8, 8)), "of 4 dimensions"),
    "channels": (lambda: save(nn.Flatten(), size=(5, 8, 9)), "of 1 to 4 channels"),
    "sigmoids": (
        lambda: save(Small(end=nn.Sequential(nn.Sigmoid(), nn.Sigmoid()))),
        "ends in a Sigmoid",
    ),
    "training": (lambda: save(Small(), train=True), "call network.eval"),
    "mixing": (lambda: save(Mixing(), batch=2), "batch cannot be freed"),
    "labels": (lambda: Path("labels.txt").write_text("cat") and save_plain(), "1 names"),
    "int8": (lambda: save(Quantized()), "is quantized.*in float"),
}


@pytest.mark.usefixtures("labels")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_classifier_is_one_line(name: str, here: Path) -> None:
    make, reason = REFUSED[name]
    make()
    with pytest.raises(UserError, match=reason) as error:
        load_foreign("own", None, given())
    assert "\n" not in str(error.value)


def test_it_is_no_file_of_weights(here: Path) -> None:
    with pytest.raises(UserError, match="--program FILE"):
        read_weights(save_plain())


class Evil:
    """What a pickle executes when it is read."""

    def __reduce__(self) -> Any:
        return Path("executed").touch, ()


TOUCH = "__import__('pathlib').Path('executed').touch()"


def changed(**files: Callable[[bytes], bytes]) -> None:
    """Changes files of net.pt2, by the last part of their names."""
    with zipfile.ZipFile("net.pt2") as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile("net.pt2", "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            last = name.rpartition("/")[2].replace(".", "_")
            archive.writestr(name, files.get(last, bytes)(content))


def evil_samples() -> None:
    buffer = io.BytesIO()
    torch.save(((Evil(),), {}), buffer)
    changed(model_pt=lambda _: buffer.getvalue())


def evil_weight() -> None:
    def name_it(content: bytes) -> bytes:
        config = json.loads(content)
        next(iter(config["config"].values()))["use_pickle"] = True
        return json.dumps(config).encode()

    buffer = io.BytesIO()
    torch.save(Evil(), buffer)
    changed(model_weights_config_json=name_it, weight_0=lambda _: buffer.getvalue())


def evil_constant() -> None:
    meta = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True}
    config = {"config": {"c": {**meta, "tensor_meta": None}}}
    changed(model_constants_config_json=lambda _: json.dumps(config).encode())
    with zipfile.ZipFile("net.pt2", "a") as archive:
        archive.writestr("net/data/constants/opaque_obj_0", pickle.dumps(Evil()))


def evil_model(old: str, new: str, count: int = 0) -> Callable[[], None]:
    def change(content: bytes) -> bytes:
        text = content.decode()
        assert re.search(old, text)
        return re.sub(old, lambda _: new, text, count=count).encode()

    return lambda: changed(model_json=change)


def escaped(text: str) -> str:
    return json.dumps(text)[1:-1]


SYMBOL = r"Symbol\('s\d+', positive=True, integer=True\)"
ENUM = '{"__enum__": true, "fqn": "executed:Evil", "name": "A"}'
RELU = r"torch\.ops\.aten\.relu\.default"
NULL = re.escape(escaped('"context": "null"'))
EVIL: dict[str, tuple[Callable[[], None], str | None]] = {
    # Nothing depends on these: they are left out.
    "example inputs": (evil_samples, None),
    "guards": (evil_model(r'"guards_code": \[\]', f'"guards_code": [{json.dumps(TOUCH)}]'), None),
    # And these are refused.
    "a pickled weight": (evil_weight, "is a pickle"),
    "a pickled constant": (evil_constant, "is a pickle"),
    "a shape": (evil_model(SYMBOL, escaped(TOUCH)), "may be code"),
    "a shape without quotes": (evil_model(SYMBOL, "eval(chr(49))"), "may be code"),
    "an operator": (evil_model(RELU, "torch.hub.list"), "no operator of aten"),
    "a file": (evil_model(RELU, "torch.ops.aten.from_file.default"), "no operator of aten"),
    "a name": (evil_model('"images"', json.dumps(f"x={TOUCH}")), "may be code"),
    "containers": (
        evil_model(NULL, escaped(f'"context": {json.dumps(ENUM)}'), 1),
        "inputs or outputs",
    ),
}


@pytest.mark.usefixtures("labels")
@pytest.mark.parametrize("name", EVIL)
def test_nothing_in_it_is_executed(name: str, here: Path) -> None:
    make, refused = EVIL[name]
    save_plain()
    make()
    if refused is None:
        found = load_foreign("own", None, given())
        assert found.module(torch.zeros(2, SIDE, SIDE, 3, dtype=torch.uint8)).shape == (2, 3)
    else:
        with pytest.raises(UserError, match=refused):
            load_foreign("own", None, given())
    assert not Path("executed").exists()


@pytest.mark.parametrize("make", [evil_samples, evil_weight, evil_constant])
def test_torch_itself_would_have_executed_it(make: Callable[[], None], here: Path) -> None:
    save_plain()
    make()
    with suppress(Exception):  # whatever follows
        torch.export.load("net.pt2")
    assert Path("executed").exists()
