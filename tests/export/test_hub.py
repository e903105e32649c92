from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_hub
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import constants

from artifact.artifact import Artifact
from artifact.runtimes.base import load_runtime
from core.errors import UserError
from export.elsewhere import Elsewhere
from export.foreign import load_foreign
from export.hub import fetch, resolve_model

CLASSES = ("cat", "dog", "eel")
NAME, SIZE = "test_resnet", 64
Command = Callable[..., Any]


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    made: torch.nn.Module = timm.create_model(NAME, num_classes=len(CLASSES)).eval()
    return made


def config(**changes: Any) -> bytes:
    """Returns a config.json as timm writes it."""
    form = {
        "input_size": [3, SIZE, SIZE],
        "interpolation": "bilinear",
        "crop_pct": 0.8,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.25, 0.3],
    }
    described = {name: f"a {name}" for name in CLASSES}
    said = {
        "architecture": NAME,
        "num_classes": len(CLASSES),
        "pretrained_cfg": form,
        "label_names": list(CLASSES),
        "label_descriptions": described,
        # of timm.create_model, as push_to_hf_hub writes them
        "model_args": {"num_classes": len(CLASSES), "drop_rate": 0.2, "in_chans": 3},
    }
    return json.dumps(said | changes).encode()


@pytest.fixture
def hub(
    network: torch.nn.Module, here: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, bytes]]:
    weights = safetensors.torch.save(network.state_dict())
    files = {"me/pets/model.safetensors": weights, "me/pets/config.json": config()}
    with fake_hub.serving(files) as address:
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(here / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield files


@pytest.mark.parametrize("named", ["--model timm/hf-hub:me/pets", "--checkpoint hf://me/pets"])
def test_weights_come_with_network_preprocessing_and_classes(
    named: str, network: torch.nn.Module, hub: dict[str, bytes], command: Command
) -> None:
    model = [] if named.startswith("--model") else ["--model", f"timm/{NAME}"]
    ended = command("export", "run", *named.split(), *model, "--formats", "onnx-fp32")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    artifact = Artifact.load(Path(f"artifacts/timm/{NAME}-pets/onnx-fp32"))
    assert artifact.labels == ("a cat", "a dog", "a eel")
    preprocess = artifact.preprocess
    assert (preprocess.resize, preprocess.crop, preprocess.interpolation) == (80, SIZE, "bilinear")
    pixels, _ = artifact.golden()
    images = (pixels / np.float32(255) - np.float32((0.5, 0.4, 0.3))) / np.float32((0.2, 0.25, 0.3))
    with torch.inference_mode():
        expected = network(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    with load_runtime("ort-cpu", artifact) as runtime:
        np.testing.assert_allclose(
            runtime(pixels), expected, rtol=0, atol=1e-4 * np.abs(expected).max()
        )
    # Fetched once: it is verified without the hub.
    hub.clear()
    verified = command("export", "verify", str(artifact.path))
    assert "passed, against torch" in verified.stdout, verified.stderr


def test_weights_may_be_of_other_channels(hub: dict[str, bytes]) -> None:
    grey = timm.create_model(NAME, num_classes=len(CLASSES), in_chans=1)
    hub["me/grey/model.safetensors"] = safetensors.torch.save(grey.state_dict())
    hub["me/grey/config.json"] = config(model_args={"in_chans": 1})
    given = Elsewhere(checkpoint=Path("hf://me/grey"))
    with pytest.raises(UserError, match="give --mean --std, as in training"):
        load_foreign(f"timm/{NAME}", None, given)
    given = replace(given, mean=(0.5,), std=(0.5,))
    assert load_foreign(f"timm/{NAME}", None, given).preprocess.channels == 1
    hub["me/deep/model.safetensors"] = hub["me/grey/model.safetensors"]
    hub["me/deep/config.json"] = config(model_args={"in_chans": 8})
    with pytest.raises(UserError, match="is built with in_chans=8, which is not supported"):
        fetch(Path("hf://me/deep"))


REFUSED: dict[str, tuple[dict[str, bytes], str, str]] = {
    "no such repository": ({}, "hf://me/cars", "cannot be fetched"),
    "no weights": ({"me/none/config.json": config()}, "hf://me/none", "has no model.safetensors"),
    "no such file": ({}, "hf://me/pets/best.pt", "has no best.pt"),
    "arguments": (
        {"me/pets/config.json": config(model_args={"drop_rate": 0.5, "global_pool": "max"})},
        "hf://me/pets",
        "is built with global_pool='max', which",
    ),
    "config": ({"me/pets/config.json": b'{"architecture"'}, "hf://me/pets", "none of timm"),
    "not an address": ({}, "hf://pets", "hf://OWNER/REPO"),
    "network": ({"me/pets/config.json": b"{}"}, "timm/hf-hub:me/pets", "names no network"),
    "pickle": ({"me/pets/a.bin": b"hello"}, "hf://me/pets/a.bin", "no file of weights"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_in_the_way_is_one_line(name: str, hub: dict[str, bytes], command: Command) -> None:
    files, address, reason = REFUSED[name]
    hub |= files
    given = ["--model", address]
    if address.startswith("hf:"):
        given = ["--checkpoint", address, "--model", f"timm/{NAME}"]
    ended = command("export", "run", *given, "--formats", "onnx-fp32")
    assert ended.returncode == 1
    told = " ".join(ended.stderr.split())
    assert reason in told
    assert ended.stderr.count("error: ") == 1
    assert "Traceback" not in ended.stderr


def test_the_address_of_another_hub_comes_from_the_environment(
    hub: dict[str, bytes], here: Path
) -> None:
    hub["me/pets/model.safetensors"] = b"weights"
    environment = os.environ | {"HF_ENDPOINT": constants.ENDPOINT, "HF_HOME": str(here / "home")}
    code = (
        "from pathlib import Path; from export.hub import fetch; print(fetch(Path('hf:/me/pets')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": str(Path(fetch.__code__.co_filename).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"architecture='{NAME}'" in done.stdout


@pytest.mark.parametrize(
    ("offline", "model"),
    [(True, "timm/hf-hub:me/pets"), (False, "timm/hf-hub:me/pets"), (False, f"timm/{NAME}")],
)
def test_offline_it_is_one_line(
    offline: bool, model: str, here: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(here / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")  # never has an address
    monkeypatch.setattr("models.hub_reach.getproxies", dict)
    ended = command("export", "run", "--model", model)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "cannot be fetched (" in ended.stderr
    assert ("hub.invalid is unreachable" in ended.stderr) != offline
    assert offline == constants.HF_HUB_OFFLINE


def test_a_model_of_the_hub_has_its_own_weights() -> None:
    with pytest.raises(UserError, match="leave out best"):
        resolve_model("timm/hf-hub:me/pets", Elsewhere(checkpoint=Path("best.pth")))
    with pytest.raises(UserError, match="hf://OWNER/REPO"):
        fetch(Path("hf://pets"))
