from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import re
import shutil
import tarfile
import urllib.request
from collections.abc import Sequence
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

from core.errors import UserError
from models.imagenet import imagenet_labels
from training import datasets
from training.data import Sample
from training.datasets import (
    DATASETS,
    DEBIAN_FASHION,
    FASHION_FILES,
    FASHION_LABELS,
    ImageArray,
    load_data,
)

needs_fashion = pytest.mark.skipif(
    not DEBIAN_FASHION.is_dir(), reason="no Debian package: apt-get install dataset-fashion-mnist"
)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns an empty folder in which fetched data sets are kept."""
    monkeypatch.setenv("POCKETNETS_DATA", str(tmp_path / "kept"))
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept"


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def classes(samples: Sequence[Sample]) -> list[int]:
    return [label for _, label in samples]


def the_one_line(name: str) -> str:
    """Returns what is said when a data set cannot be loaded."""
    with pytest.raises(UserError) as caught:
        load_data(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Samples in arrays


def test_an_array_holds_samples_like_a_list() -> None:
    pixels = np.arange(5 * 2 * 3 * 3, dtype=np.uint8).reshape(5, 2, 3, 3)
    samples = ImageArray(pixels, [4, 3, 2, 1, 0])
    assert len(samples) == 5
    image, label = samples[-1]
    assert isinstance(image, Image.Image)
    assert (np.asarray(image) == pixels[4]).all()
    assert label == 0
    assert type(label) is int
    assert classes(samples[1:3]) == [3, 2]
    assert classes(list(samples)) == [4, 3, 2, 1, 0]
    with pytest.raises(IndexError):
        samples[5]


def test_an_array_reaches_another_process_as_two_arrays() -> None:
    samples = ImageArray(np.zeros((1000, 8, 8), np.uint8), np.arange(1000))
    content = pickle.dumps(samples[:100])
    assert len(content) < 100 * (8 * 8 + 8) + 1000  # the bytes of those 100 and little else
    copy = pickle.loads(content)
    assert classes(copy) == list(range(100))
    assert copy[0][0].size == (8, 8)


# What is there without a network


def test_digits_are_split_the_same_way_every_time() -> None:
    first, second = load_data("digits"), load_data("digits")
    assert len(first.train) + len(first.val) == 1797
    assert (first.name, first.labels) == ("digits", tuple("0123456789"))
    assert classes(first.val) == classes(second.val)
    assert np.bincount(classes(first.val)).min() >= 34  # a fifth of each class


def test_digits_keep_their_grey_levels() -> None:
    image, _ = load_data("digits").train[0]
    assert isinstance(image, Image.Image)
    assert image.size == (8, 8)
    assert set(np.unique(np.asarray(image))) <= set(np.round(np.arange(17) * 255 / 16).astype(int))


@needs_fashion
def test_fashion_mnist_is_the_published_one() -> None:
    data = load_data("fashion_mnist")
    assert data.name == "fashion_mnist"
    assert np.bincount(classes(data.val)).tolist() == [1000] * 10
    images, labels = zip(*data.train, strict=True)
    assert np.bincount(labels).tolist() == [6000] * 10
    assert (images[0].mode, images[0].size) == ("L", (28, 28))
    assert data.labels[labels[0]] == "Ankle boot"
    pixels = np.stack([np.asarray(image) for image in images]) / 255
    assert round(pixels.mean(), 3) == 0.286  # the figures everybody normalises it by
    assert round(pixels.std(), 3) == 0.353


def test_fashion_labels_are_those_of_torchvision() -> None:
    from torchvision.datasets import FashionMNIST

    assert tuple(FashionMNIST.classes) == FASHION_LABELS


# What torchvision fetches


@pytest.fixture
def no_debian_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets, "DEBIAN_FASHION", tmp_path / "not installed")


@needs_fashion
@pytest.mark.usefixtures("no_debian_package")
def test_fetched_fashion_mnist_gives_the_samples_of_the_package(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import FashionMNIST

    raw = kept / "FashionMNIST" / "raw"
    shutil.copytree(DEBIAN_FASHION, raw)
    # Debian compressed the same content anew, so the archives have other digests.
    digests = [(name, md5((raw / name).read_bytes())) for name in FASHION_FILES]
    monkeypatch.setattr(FashionMNIST, "resources", digests)
    ours = load_data("fashion_mnist")
    for part, train in ((ours.train, True), (ours.val, False)):
        theirs = FashionMNIST(kept, train=train, download=True)
        images, labels = zip(*part, strict=True)
        assert list(labels) == theirs.targets.tolist()
        assert (np.stack([np.asarray(image) for image in images]) == theirs.data.numpy()).all()


@pytest.mark.usefixtures("no_debian_package")
def test_fashion_mnist_without_a_network(kept: Path) -> None:
    line = the_one_line("fashion_mnist")
    assert re.search(rf"train-images-idx3-ubyte\.gz .*{kept}/FashionMNIST/raw", line)
    assert "no network in tests" in line
    assert line.endswith("apt-get install dataset-fashion-mnist")


@pytest.mark.parametrize(
    "content",
    [
        b"no archive",
        b"",
        gzip.compress(b""),
        gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 9, 1, 2])),
        gzip.compress(bytes(1000))[:-9],
    ],
    ids=["text", "empty", "of nothing", "too few values", "cut short"],
)
def test_a_damaged_file_of_the_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(datasets, "DEBIAN_FASHION", tmp_path)
    for name in FASHION_FILES:
        (tmp_path / name).write_bytes(content)
    line = the_one_line("fashion_mnist")
    assert line.startswith(f"{tmp_path / FASHION_FILES[0]} ")
    assert line.endswith("apt-get install --reinstall dataset-fashion-mnist")


def make_cifar(kept: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Path:
    """Returns a tiny archive in the format of CIFAR, whose digests torchvision then expects."""
    import torchvision

    source = getattr(torchvision.datasets, name.upper())
    key = "labels" if name == "cifar10" else "fine_labels"
    folder = kept / source.base_folder
    folder.mkdir()
    random = np.random.default_rng(0)

    def write(file: str, content: object) -> str:
        (folder / file).write_bytes(pickle.dumps(content))
        return md5((folder / file).read_bytes())

    for part in ("train_list", "test_list"):
        listed = []
        for file, _ in getattr(source, part):
            pixels = random.integers(0, 256, (2, 3 * 32 * 32), dtype=np.uint8)
            listed.append([file, write(file, {"data": pixels, key: [1, 0]})])
        monkeypatch.setattr(source, part, listed)
    meta = write(source.meta["filename"], {source.meta["key"]: ["frog", "ship"]})
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": meta})
    archive: Path = kept / source.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, source.base_folder)
    monkeypatch.setattr(source, "tgz_md5", md5(archive.read_bytes()))
    return archive


@pytest.mark.parametrize(("name", "batches"), [("cifar10", 5), ("cifar100", 1)])
def test_cifar_holds_out_the_published_test_images(
    kept: Path, monkeypatch: pytest.MonkeyPatch, name: str, batches: int
) -> None:
    archive = make_cifar(kept, monkeypatch, name)
    unpacked = next(entry for entry in kept.iterdir() if entry.is_dir())
    train, test = ("data_batch_1", "test_batch") if batches == 5 else ("train", "test")
    stored = [pickle.loads((unpacked / file).read_bytes())["data"] for file in (train, test)]
    shutil.rmtree(unpacked)  # as after a download
    data = load_data(name)
    assert data.name == name
    assert data.labels == ("frog", "ship")
    assert classes(data.train) == [1, 0] * batches
    assert classes(data.val) == [1, 0]
    for part, rows in zip((data.train, data.val), stored, strict=True):
        image, _ = part[1]
        assert (np.asarray(image) == rows[1].reshape(3, 32, 32).transpose(1, 2, 0)).all()
    archive.unlink()  # unpacked, it is not needed any more
    assert classes(load_data(name).train) == [1, 0] * batches


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_without_a_network(here: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("POCKETNETS_DATA", raising=False)
    line = the_one_line(name)
    archive = f"{name[:5]}-{name[5:]}-python.tar.gz"
    assert line.startswith(f"{name}: {archive} ")
    assert "no network in tests" in line
    assert re.search(rf"https://www\.cs\.toronto\.edu/~kriz/{archive} .*\bdata\b", line)
    assert "POCKETNETS_DATA" in line


def test_an_archive_cut_short_is_named(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_cifar(kept, monkeypatch, "cifar10")
    shutil.rmtree(kept / "cifar-10-batches-py")
    archive.write_bytes(archive.read_bytes()[:-100])
    line = the_one_line("cifar10")
    assert f"{archive} " in line
    assert "no network in tests" in line


class Response(io.BytesIO):
    """An answer to a request, which ends as the page it is or breaks off."""

    length = None

    def __init__(self, url: str, *, breaks: bool) -> None:
        super().__init__(b"<html>log in to this network first</html>")
        self.url = url
        self._breaks = breaks

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        if self._breaks and not content:
            raise IncompleteRead(b"")
        return content


@pytest.mark.parametrize("breaks", [False, True], ids=["another page", "broken off"])
def test_what_was_fetched_is_not_the_archive(
    kept: Path, monkeypatch: pytest.MonkeyPatch, breaks: bool
) -> None:
    def answer(request: urllib.request.Request) -> Response:
        return Response(request.full_url, breaks=breaks)

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    line = the_one_line("cifar100")
    assert f"{kept}/cifar-100-python.tar.gz " in line
    assert ("IncompleteRead" if breaks else "corrupted") in line


def test_a_damaged_batch_is_unpacked_again(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cifar(kept, monkeypatch, "cifar10")
    (kept / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"cut short")
    assert classes(load_data("cifar10").train) == [1, 0] * 5


def test_an_archive_that_cannot_be_unpacked(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cifar(kept, monkeypatch, "cifar10")
    shutil.rmtree(kept / "cifar-10-batches-py")
    (kept / "cifar-10-batches-py").write_bytes(b"in the way")
    line = the_one_line("cifar10")
    assert re.search(rf"cifar-10-python\.tar\.gz .*{kept}", line)


@pytest.fixture
def flowers(kept: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the folder of a tiny Oxford 102 Flowers: eight photos of two kinds, unpacked."""
    from scipy.io import savemat
    from torchvision.datasets import Flowers102

    folder = kept / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    for index in range(1, 9):
        Image.new("RGB", (9, 9), (index, 0, 0)).save(folder / "jpg" / f"image_{index:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": [1, 1, 1, 1, 102, 102, 102, 102]})
    savemat(folder / "setid.mat", {"trnid": [1, 5], "valid": [2, 6], "tstid": [3, 4, 7, 8]})
    with tarfile.open(folder / "102flowers.tgz", "w:gz") as tar:
        tar.add(folder / "jpg", "jpg")
    digests = {
        key: (name, md5((folder / name).read_bytes()))
        for key, (name, _) in Flowers102._file_dict.items()
    }
    monkeypatch.setattr(Flowers102, "_file_dict", digests)
    return folder


def test_flowers_are_learned_from_train_and_val_and_held_out_from_test(flowers: Path) -> None:
    data = load_data("flowers102")
    assert (len(data.labels), data.labels[0], data.labels[101]) == (
        102,
        "pink primrose",
        "blackberry lily",
    )
    numbers = [
        [int(str(source)[-9:-4]) for source, _ in samples] for samples in (data.train, data.val)
    ]
    assert numbers == [[1, 5, 2, 6], [3, 4, 7, 8]]
    assert classes(data.train) == [0, 101, 0, 101]
    assert classes(data.val) == [0, 0, 101, 101]


def test_flowers_with_photos_missing(flowers: Path) -> None:
    missing = flowers / "jpg" / "image_00007.jpg"
    missing.unlink()
    line = the_one_line("flowers102")
    assert re.search(rf"\b1 of 8 .*{missing}.*{flowers}/jpg\b", line)
    shutil.rmtree(flowers / "jpg")  # as the line says
    assert len(load_data("flowers102").val) == 4


def test_flowers_without_a_network(kept: Path, flowers: Path) -> None:
    (flowers / "setid.mat").unlink()
    line = the_one_line("flowers102")
    assert re.search(rf"setid\.mat .*{flowers}", line)
    assert "https://www.robots.ox.ac.uk/" in line
    assert line.endswith(" flowers-102/setid.mat")


# ImageNet, which has to be brought


@pytest.fixture
def some_imagenet(kept: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the folder of an ImageNet of 1,000 made-up wnids with one file each."""
    wnids = [f"n{index * 7919 % 10000:08d}" for index in range(1000)]
    for part in ("train", "val"):
        for wnid in wnids:
            (kept / "imagenet" / part / wnid).mkdir(parents=True)
            (kept / "imagenet" / part / wnid / f"{wnid}_1.JPEG").touch()
    digest = hashlib.sha256("\n".join(sorted(wnids)).encode()).hexdigest()
    monkeypatch.setattr(datasets, "WNIDS_SHA256", digest)
    return kept / "imagenet"


def test_imagenet_names_its_classes_in_words_by_sorted_wnid(some_imagenet: Path) -> None:
    data = load_data("imagenet")
    assert (data.name, len(data.train), len(data.val)) == ("imagenet", 1000, 1000)
    assert (data.labels[0], data.labels[999]) == ("tench", "toilet tissue")
    for samples in (data.train, data.val):
        by_class = sorted((label, str(file)) for file, label in samples)
        assert [file for _, file in by_class] == sorted(file for _, file in by_class)


def test_the_thousand_wnids_sort_into_the_order_of_the_labels() -> None:
    info = pytest.importorskip("timm.data", reason="timm carries the wnids: pip install '.[timm]'")
    names = info.ImageNetInfo("imagenet-1k")
    wnids = names.label_names()
    assert hashlib.sha256("\n".join(wnids).encode()).hexdigest() == datasets.WNIDS_SHA256
    assert wnids == sorted(wnids)
    reworded = {"crane bird": "crane", "maillot tank suit": "maillot, tank suit"}
    for label, wnid in zip(imagenet_labels(), wnids, strict=True):
        described = names.label_name_to_description(wnid, detailed=False)
        assert reworded.get(label, label).lower() in described.lower()


@pytest.mark.parametrize("part", ["train", "val"])
def test_imagenet_with_a_class_missing(some_imagenet: Path, part: str) -> None:
    shutil.rmtree(next((some_imagenet / part).iterdir()))
    line = the_one_line("imagenet")
    assert re.search(rf"^imagenet: {some_imagenet / part} .*\b999\b.*\b1,000\b", line)


def test_imagenet_that_is_not_there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POCKETNETS_DATA", raising=False)
    line = the_one_line("imagenet")
    assert re.search(r"^imagenet: data/imagenet/train .*\b0\b.*\b1,000\b", line)
    assert "data/imagenet/val/n01440764/*.JPEG" in line
    assert re.search(r"POCKETNETS_DATA .*imagenet/", line)


def test_the_table_in_the_docs_is_the_registry() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text()
    rows = [
        f"| `{spec.name}` | {spec.images} | {spec.held_out} | {spec.origin} |"
        for spec in DATASETS.values()
    ]
    assert "\n".join(rows) in page
