"""The data sets that have a name. What has to be fetched is kept in fetch.data_folder()."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from core.errors import UserError, first_line
from core.preprocess import Pixels
from training.data import ImageData, Sample
from training.fetch import data_folder, fetching
from training.folder import read_folder
from training.identity import HELD_OUT

SPLIT_SEED = 0  # of the digits
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
FASHION_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
FASHION_LABELS = (  # torchvision's; importing it only for them would take seconds
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# Of the 1,000 wnids, sorted, one a line: other classes would get these labels and not be noticed.
WNIDS_SHA256 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"


class ImageArray(Sequence[Sample]):
    """Samples held in two arrays; an image is made when it is asked for.

    Args:
        pixels: uint8 (N, H, W) grey or (N, H, W, 3) RGB.
        labels: (N,) class indices.
    """

    def __init__(self, pixels: Pixels, labels: npt.ArrayLike) -> None:
        self._pixels = pixels
        self._labels = np.asarray(labels, dtype=np.int64)
        assert len(self._pixels) == len(self._labels)

    def __len__(self) -> int:
        return len(self._labels)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> ImageArray: ...
    def __getitem__(self, index: int | slice) -> Sample | ImageArray:
        if isinstance(index, slice):
            return ImageArray(self._pixels[index], self._labels[index])
        return Image.fromarray(self._pixels[index]), int(self._labels[index])


def digits() -> ImageData:
    """Returns scikit-learn's 1,797 handwritten digits: grey, 8x8, 17 levels; 20 % held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    loaded = load_digits()
    grey = np.round(loaded.images * (255 / 16)).astype(np.uint8)
    train, val = train_test_split(
        np.arange(len(grey)),
        test_size=round(HELD_OUT * len(grey)),
        stratify=loaded.target,
        random_state=SPLIT_SEED,
    )
    return ImageData(
        name="digits",
        labels=tuple("0123456789"),
        train=ImageArray(grey[train], loaded.target[train]),
        val=ImageArray(grey[val], loaded.target[val]),
    )


def fashion_mnist() -> ImageData:
    """Returns Fashion-MNIST: 70,000 grey 28x28 images of clothes; the test images are held out.

    Its files are read from Debian's package ``dataset-fashion-mnist`` where that is installed,
    and else fetched from where torchvision fetches them.

    Raises:
        UserError: the files cannot be fetched, or are damaged.
    """
    installed = all((DEBIAN_FASHION / name).is_file() for name in FASHION_FILES)
    folder = DEBIAN_FASHION if installed else _fetch_fashion()
    train, train_labels, test, test_labels = (_read_idx(folder / name) for name in FASHION_FILES)
    return ImageData(
        name="fashion_mnist",
        labels=FASHION_LABELS,
        train=ImageArray(train, train_labels),
        val=ImageArray(test, test_labels),
    )


def cifar10() -> ImageData:
    """Returns CIFAR-10: 60,000 RGB 32x32 images, 10 classes; the 10,000 test images are held out.

    Raises:
        UserError: its archive cannot be fetched, or is damaged.
    """
    from torchvision.datasets import CIFAR10

    return _cifar("cifar10", CIFAR10)


def cifar100() -> ImageData:
    """Returns CIFAR-100: as CIFAR-10, with 100 classes.

    Raises:
        UserError: its archive cannot be fetched, or is damaged.
    """
    from torchvision.datasets import CIFAR100

    return _cifar("cifar100", CIFAR100)


def flowers102() -> ImageData:
    """Returns Oxford 102 Flowers: 8,189 photos of 102 kinds.

    Learned from are the published training and validation images together, 20 of each kind; held
    out are the 6,149 test images. So figures compare with papers that do the same, as most do.

    Raises:
        UserError: its files cannot be fetched, or are damaged.
    """
    from torchvision.datasets import Flowers102

    folder = data_folder() / "flowers-102"
    archives = dict(Flowers102._file_dict.values())
    parts: dict[str, list[Sample]] = {}
    with fetching("flowers102", folder, Flowers102._download_url_prefix, archives):
        for part in ("train", "val", "test"):
            photos = Flowers102(data_folder(), split=part, download=True, loader=Path)
            parts[part] = [photos[index] for index in range(len(photos))]
    files = [file for part in parts.values() for file, _ in part if isinstance(file, Path)]
    if missing := [file for file in files if not file.is_file()]:
        raise UserError(
            f"flowers102: {len(missing):,} of {len(files):,} photos are not there, the first is "
            f"{missing[0]}; remove {missing[0].parent} and the archive is unpacked again"
        )
    return ImageData(
        name="flowers102",
        labels=tuple(Flowers102.classes),
        train=parts["train"] + parts["val"],
        val=parts["test"],
    )


def imagenet() -> ImageData:
    """Returns ImageNet-1k (ILSVRC2012) from ``imagenet/`` in the folder of fetched data sets.

    There it stands unpacked as ``train/<wnid>/*.JPEG`` and ``val/<wnid>/*.JPEG``; it cannot be
    fetched without an account. Class indices follow the sorted wnids, as in all published
    weights; labels are their names in words.

    Raises:
        UserError: the 1,000 class folders are not there, with what to put where.
    """
    from models.imagenet import imagenet_labels

    root = data_folder() / "imagenet"
    for part in ("train", "val"):
        wnids = sorted(entry.name for entry in (root / part).glob("n*") if entry.is_dir())
        if sha256("\n".join(wnids).encode()).hexdigest() != WNIDS_SHA256:
            raise UserError(
                f"imagenet: {root / part} holds {len(wnids):,} class folders, not the 1,000 from "
                f"n01440764 to n15075141; unpack ILSVRC2012_img_train.tar and _val.tar of "
                f"image-net.org (an account is needed) so that {root}/train/n01440764/*.JPEG and "
                f"{root}/val/n01440764/*.JPEG are there, and so on, or set POCKETNETS_DATA to the "
                "folder that holds such an imagenet/"
            )
    images = read_folder(root, name="imagenet")
    return replace(images, labels=imagenet_labels(), folder=None)  # published, not the user's own


def _fetch_fashion() -> Path:
    """Returns the folder with the four archives, fetched from where torchvision has them."""
    from torchvision.datasets import FashionMNIST
    from torchvision.datasets.utils import download_url

    folder = data_folder() / "FashionMNIST" / "raw"
    archives, url = dict(FashionMNIST.resources), FashionMNIST.mirrors[0]
    also = ", or apt-get install dataset-fashion-mnist"
    with fetching("fashion_mnist", folder, url, archives, also=also):
        for name, md5 in archives.items():
            download_url(url + name, folder, name, md5)
    return folder


def _read_idx(file: Path) -> Pixels:
    """Returns the array in a gzipped idx file of bytes: 0, 0, 8, rank, big-endian shape, values.

    Raises:
        UserError: it is damaged or cut short.
    """
    try:
        content = gzip.decompress(file.read_bytes())
        rank = content[3]
        shape = np.frombuffer(content, ">i4", count=rank, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, zlib.error, ValueError, IndexError) as error:
        raise UserError(
            f"{file} is damaged or cut short ({first_line(error)}); remove it, or "
            "apt-get install --reinstall dataset-fashion-mnist"
        ) from error


def _cifar(name: str, source: Any) -> ImageData:
    """Returns CIFAR by torchvision's class for it, which checks the MD5 of every file it reads."""
    with fetching(name, data_folder(), source.url, {source.filename: source.tgz_md5}):
        train, test = (source(data_folder(), train=part, download=True) for part in (True, False))
    return ImageData(
        name=name,
        labels=tuple(train.classes),
        train=ImageArray(train.data, train.targets),
        val=ImageArray(test.data, test.targets),
    )


DATASETS: Mapping[str, Callable[[], ImageData]] = {
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "flowers102": flowers102,
    "imagenet": imagenet,
}
