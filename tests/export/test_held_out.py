"""What a network was trained on never proves it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from core.errors import UserError
from export.network import load_network
from training.checkpoint import KEY, checkpoint_path, load_checkpoint, run_folder
from training.data import ImageData, Sample
from training.datasets import load_data
from training.fit import fit
from training.identity import digest_of, digests_of
from training.options import FolderOptions
from training.recipe import Recipe

RECIPE = Recipe(
    epochs=1, batch_size=4, learning_rate=1e-3, resize=8, crop=8, min_scale=1.0, flip=False
)
RUN = run_folder("resnet14", "pets")


def paint(folder: Path, shades: range) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for shade in shades:
        Image.new("RGB", (9, 9), (shade % 256, len(folder.name), 9)).save(folder / f"{shade}.png")


@pytest.fixture(scope="module")
def trained_on_pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained_on_pets")
    for label in ("cat", "puppy"):
        paint(folder / "pets" / label, range(20))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(load_data("pets"))
    return folder


@pytest.fixture
def pets(here: Path, trained_on_pets: Path) -> Path:
    """Returns a folder of two classes, twenty images each, on which a network was trained."""
    shutil.copytree(trained_on_pets, here, dirs_exist_ok=True)
    return here / "pets"


def train(data: ImageData, options: FolderOptions | None = None) -> None:
    fit("resnet14", data, RECIPE, options=options)


def digests(samples: list[Sample]) -> set[bytes]:
    return set(digests_of(samples, {}))


def test_an_unchanged_folder_is_held_out_as_it_was(
    pets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    network = load_network("resnet14", "pets")
    assert digests(list(network.held_out)) == digests(list(load_data("pets").val))
    assert len(network.calibration) == 32
    assert "are not used" not in capsys.readouterr().err


def test_what_was_trained_on_is_not_held_out_of_a_folder_that_changed(
    pets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained_on = load_checkpoint(checkpoint_path(RUN)).trained_on
    assert trained_on is not None
    assert len(trained_on) == 32
    cats = [Path(str(source)) for source, label in load_data("pets").val if label == 0]
    for file in cats[:2]:  # two others are held out now
        file.unlink()
    now = digests(list(load_data("pets").val))
    assert len(now & trained_on) == 2
    capsys.readouterr()
    network = load_network("resnet14", "pets")
    assert digests(list(network.held_out)) == now - trained_on
    assert "2 of 8 held-out images are not used, as " in capsys.readouterr().err


def test_a_folder_whose_held_out_images_were_all_trained_on(pets: Path) -> None:
    data = load_data("pets")
    for (source, label), part in [(s, p) for p in ("train", "val") for s in data.parts[p]]:
        name = Path(str(source)).name
        (pets / part / data.labels[label]).mkdir(parents=True, exist_ok=True)
        (pets / part / data.labels[label] / name).write_bytes(Path(str(source)).read_bytes())
        if part == "train":
            (pets / "val" / data.labels[label]).mkdir(parents=True, exist_ok=True)
            (pets / "val" / data.labels[label] / name).write_bytes(Path(str(source)).read_bytes())
    network = load_network("resnet14", "pets")
    assert digests(list(network.held_out)) == digests(list(data.val))
    for source, label in data.val:
        (pets / "val" / data.labels[label] / Path(str(source)).name).unlink()
    with pytest.raises(UserError, match="trained on all of the 32 held-out images; train again"):
        load_network("resnet14", "pets")


def test_a_checkpoint_of_an_earlier_version_says_what_it_does_not_know(
    pets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = checkpoint_path(RUN)
    saved = torch.load(path, weights_only=True)
    assert saved[KEY]["schema"] == 3
    saved[KEY]["schema"] = 2
    del saved[KEY]["trained_on"], saved[KEY]["options"]
    torch.save(saved, path)
    assert load_checkpoint(path).trained_on is None
    capsys.readouterr()
    network = load_network("resnet14", "pets")
    assert len(network.held_out) == 8
    said = capsys.readouterr().err
    assert "earlier version and does not say which images it was trained on" in said
    assert "some of the 8 held-out ones may be among them" in said


def test_a_folder_is_read_as_it_was_for_training(here: Path) -> None:
    for part, shades in (("fit", range(8)), ("check", range(8, 12)), ("final", range(12, 20))):
        for label in ("cat", "puppy"):
            paint(here / "pets" / part / label, shades)
    for index in range(3):
        (here / "pets" / "final" / "cat" / f"broken{index}.png").write_bytes(b"no image")
    parts = ("train=fit", "val=check", "test=final")
    options = FolderOptions(split_folders=parts, skip_unreadable=True)
    train(load_data("pets", options), options)
    network = load_network("resnet14", "pets")
    assert {Path(str(source)).parts[1] for source, _ in network.held_out} == {"final"}
    assert len(network.held_out) == 16
    assert {Path(str(source)).parts[1] for source, _ in network.calibration} == {"fit"}


def test_named_data_sets_say_what_they_were_trained_on_as_well(in_trained: Path) -> None:
    checkpoint = load_checkpoint(checkpoint_path(run_folder("mobilenet_v3", "digits")))
    data = load_data("digits")
    assert checkpoint.trained_on == {digest_of(source) for source, _ in data.train}
