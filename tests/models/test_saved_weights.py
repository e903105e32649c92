from __future__ import annotations

import argparse
import functools
import io
import json
import pickle
import re
import subprocess
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from core.errors import UserError
from models.saved_weights import read_weights

WEIGHTS = {"conv.weight": torch.arange(8.0).view(2, 1, 2, 2), "conv.bias": torch.ones(2)}


def saved(content: Any, path: Path, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_a_bare_state_dict(tmp_path: Path, zipped: bool) -> None:
    path = saved(WEIGHTS, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    groups = read_weights(path).groups
    assert list(groups) == [""]
    assert groups[""].keys() == WEIGHTS.keys()
    torch.testing.assert_close(groups[""], WEIGHTS)


def test_safetensors_whatever_the_file_is_called(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model.bin")
    torch.testing.assert_close(read_weights(tmp_path / "model.bin").groups[""], WEIGHTS)


def test_what_training_scripts_save_beside_the_weights_is_in_no_ones_way(tmp_path: Path) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1, momentum=0.9)
    checkpoint = {
        "arch": "resnet18",
        "args": argparse.Namespace(model="resnet18", mean=[0.5, 0.5, 0.5]),
        "epoch": 3,
        "best": np.float64(0.5),
        "history": defaultdict(list, {"loss": [1.0]}),
        "folder": Path("runs"),
        "hyper_parameters": {"activation": functools.partial(nn.ReLU, inplace=True)},
        "optimizer": optimizer.state_dict(),
        "state_dict": WEIGHTS,
        "model_ema": {"module": WEIGHTS | {"conv.bias": torch.zeros(2)}},
    }
    read = read_weights(saved(checkpoint, tmp_path / "last.ckpt"))
    assert {"state_dict", "model_ema.module"} <= read.groups.keys()
    assert read.groups["model_ema.module"]["conv.bias"].tolist() == [0, 0]
    assert (read.architecture, read.arguments["mean"]) == ("resnet18", [0.5, 0.5, 0.5])
    assert "functools.partial" in read.classes


def test_a_whole_module_gives_its_state_dict(tmp_path: Path) -> None:
    module = nn.DataParallel(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    module.register_buffer("passing", torch.ones(1), persistent=False)
    tensors = read_weights(saved(module, tmp_path / "whole.pt")).groups[""]
    torch.testing.assert_close(tensors, dict(module.state_dict()), check_stride=False)


class Runs:
    """Runs a command wherever it is unpickled by pickle."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("kind", ["os", "subprocess", "eval"])
@pytest.mark.parametrize("where", ["beside", "alone"])
def test_nothing_in_a_pickle_is_executed(
    tmp_path: Path, kind: str, where: str, zipped: bool
) -> None:
    import os

    mark = tmp_path / "executed"
    evil = {
        "os": Runs(os.system, f"touch {mark}"),
        "subprocess": Runs(subprocess.check_call, ["touch", str(mark)]),
        "eval": Runs(eval, f"open({str(mark)!r}, 'w').close()"),
    }[kind]
    content = {"state_dict": WEIGHTS, "hyper_parameters": evil} if where == "beside" else evil
    path = saved(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    try:
        assert set(read_weights(path).groups) <= {"state_dict"}
    except UserError as error:
        told = str(error)
        assert "GLOBAL" in told
        assert not re.search("weights_only|likely succeed|add_safe_globals|\n", told)
    assert not mark.exists()
    pickle.loads(pickle.dumps(evil))
    assert mark.exists(), "this test would not have noticed"


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"")
        archive.writestr("a/data/0", bytes(50_000_000))


def torchscript(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"")
        archive.writestr("a/constants.pkl", b"")


def photos(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/cat.jpeg", b"")


def ultralytics(path: Path) -> None:
    whole = io.BytesIO()
    torch.save({"model": nn.Linear(2, 2)}, whole)
    # A class of that name, as the library is not needed to name it.
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            content = content.replace(b"torch.nn.modules.linear", b"ultralytics.nn.tasks")
            new.writestr(entry, content)


MADE = {
    "bomb": (bomb, "unpack to 50,000,000"),
    "TorchScript": (torchscript, "TorchScript"),
    "another archive": (photos, "not of torch.save"),
    "Ultralytics": (ultralytics, "--onnx"),
    "text": (lambda path: path.write_text("hello"), "no file of weights"),
    "empty": (lambda path: path.write_bytes(b""), "no file of weights"),
    "JPEG": (lambda path: Image.new("RGB", (8, 8)).save(path, "JPEG"), r"no file .*\.pth\.tar"),
    "ONNX": (lambda path: path.write_bytes(b"\x08\x08\x12\x07pytorch"), "--onnx FILE"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({1})), "cannot be read as weights"),
    "Git LFS": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
        "git lfs pull",
    ),
    "no file": (lambda path: None, "there is no file"),
    "folder": (lambda path: path.mkdir(), "is a folder; pass the path of a file in it"),
}


@pytest.mark.parametrize("name", MADE)
def test_what_cannot_be_read_is_one_line(name: str, tmp_path: Path) -> None:
    make, reason = MADE[name]
    make(tmp_path / "a.pth")
    with pytest.raises(UserError, match=reason) as error:
        read_weights(tmp_path / "a.pth")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("kind", "load"), [("safetensors", "load_file"), ("bin", "torch.load")])
def test_an_index_of_shards_says_how_to_merge_them(kind: str, load: str, tmp_path: Path) -> None:
    shards = [f"model-0000{n}-of-00002.{kind}" for n in (1, 2)]
    places = {"conv.weight": shards[0], "conv.bias": shards[1], "fc.bias": shards[1]}
    path = tmp_path / f"model.{kind}.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 9}, "weight_map": places}, indent=2))
    with pytest.raises(UserError, match=r"in 2 files \(.*00001-of-00002.* merge them") as error:
        read_weights(path)
    assert f"{load}(file)" in str(error.value)


@pytest.mark.parametrize("kind", ["zip", "before torch 1.6", "safetensors"])
def test_a_file_cut_anywhere_is_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    if kind == "safetensors":
        save_file(WEIGHTS, path)
    else:
        saved(WEIGHTS, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    for end in range(1, len(whole) - 1, max(1, len(whole) // 40)):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError) as error:
            read_weights(path)
        assert "\n" not in str(error.value)


def test_damaged_bytes_never_show_a_traceback(tmp_path: Path) -> None:
    path, random = saved(WEIGHTS, tmp_path / "a.pth"), np.random.default_rng(0)
    whole, refused = path.read_bytes(), 0
    for _ in range(200):
        content = bytearray(whole)
        for place in random.integers(0, len(content), 4):
            content[place] = random.integers(0, 256)
        path.write_bytes(content)
        try:
            read_weights(path)
        except UserError as error:
            refused += "\n" not in str(error)
    assert refused > 100


def test_the_same_dictionary_in_many_places_is_read_once(tmp_path: Path) -> None:
    inner: dict[str, Any] = dict(WEIGHTS)
    for _ in range(60):
        inner = {"left": inner, "right": inner}
    assert len(read_weights(saved(inner, tmp_path / "laughs.pth")).groups) == 1


def test_keys_of_published_densenets_are_todays(tmp_path: Path) -> None:
    old = "features.denseblock1.denselayer12.norm.1.running_mean"
    path = saved({old: torch.ones(1), "norm.1.weight": torch.ones(1)}, tmp_path / "a.pth")
    keys = list(read_weights(path).groups[""])
    assert keys == ["features.denseblock1.denselayer12.norm1.running_mean", "norm.1.weight"]
