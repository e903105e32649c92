"""Named data sets. Downloaded files are kept in fetch.data_folder()."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from shlex import quote
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console

from core.errors import UserError, first_line
from core.preprocess import Pixels
from core.registry import Registry
from training.data import ImageData, Sample
from training.fetch import data_folder, fetching
from training.folder import find_folder, folder_name, read_folder
from training.folds import named_fold
from training.identity import HELD_OUT
from training.options import FolderLayout, FolderOptions

SPLIT_SEED = 0  # seed of the split of digits
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")  # from the package dataset-fashion-mnist
FASHION_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
FASHION_LABELS = (  # torchvision's names, repeated as importing it takes seconds
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
TAKEN = ("random",)  # the name of artifacts with random weights
# Digest of the 1,000 sorted wnids, one per line: other classes would silently get wrong labels.
WNIDS_SHA256 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"


class ImageArray(Sequence[Sample]):
    """Samples stored in two arrays; an image is created on access.

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

    Its files are read from Debian's package ``dataset-fashion-mnist`` if installed, else downloaded
    from the same source as torchvision's.

    Raises:
        UserError: the files cannot be downloaded, or are damaged.
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

    The training set is the published training and validation images together, 20 of each kind; the
    6,149 test images are held out, as in most papers.

    Raises:
        UserError: its files cannot be downloaded, or are damaged.
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
    """Returns ImageNet-1k (ILSVRC2012) from ``imagenet/`` in :func:`data_folder`.

    The user must unpack it there as ``train/<wnid>/*.JPEG`` and ``val/<wnid>/*.JPEG``, as it cannot
    be downloaded without an account. Class indices follow the sorted wnids, as in all published
    weights; labels are the class names.

    Raises:
        UserError: the 1,000 class folders are missing; the message says where to put them.
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
    """Downloads the four archives as torchvision does and returns their folder."""
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
        UserError: it is damaged or truncated.
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
    """Returns CIFAR, using torchvision's class for it, which checks the MD5 of every file."""
    with fetching(name, data_folder(), source.url, {source.filename: source.tgz_md5}):
        train, test = (source(data_folder(), train=part, download=True) for part in (True, False))
    return ImageData(
        name=name,
        labels=tuple(train.classes),
        train=ImageArray(train.data, train.targets),
        val=ImageArray(test.data, test.targets),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSet:
    """A named data set.

    Attributes:
        name: its name, also used in the folders of runs.
        load: loads it, downloading it if necessary.
        recipe: name of the default recipe; None for photos: fine-tuning if there are published
            weights, training from scratch otherwise.
        images: a text: number and size of the images.
        held_out: a text: what is held out.
        origin: a text: where it comes from.
    """

    name: str
    load: Callable[[], ImageData]
    recipe: str | None = None
    images: str
    held_out: str
    origin: str


DATASETS = Registry[DataSet]("data set")

DATASETS.register(
    DataSet(
        name="digits",
        load=digits,
        recipe="digits",
        images="1,797 grey, 8x8",
        held_out="20 %",
        origin="scikit-learn ships it",
    )
)
DATASETS.register(
    DataSet(
        name="fashion_mnist",
        load=fashion_mnist,
        recipe="small",
        images="70,000 grey, 28x28",
        held_out="the 10,000 test images",
        origin="`apt-get install dataset-fashion-mnist`, or fetched",
    )
)
for _name, _load in (("cifar10", cifar10), ("cifar100", cifar100)):
    DATASETS.register(
        DataSet(
            name=_name,
            load=_load,
            recipe="small",
            images="60,000 RGB, 32x32",
            held_out="the 10,000 test images",
            origin="fetched",
        )
    )
DATASETS.register(
    DataSet(
        name="flowers102",
        load=flowers102,
        images="8,189 photos",
        held_out="the 6,149 test images",
        origin="fetched",
    )
)
DATASETS.register(
    DataSet(
        name="imagenet",
        load=imagenet,
        recipe="scratch",
        images="1.3 million photos",
        held_out="the 50,000 validation images",
        origin="unpack it as `imagenet/train/<wnid>/` and `imagenet/val/<wnid>/`",
    )
)


def data_name(data: str) -> str:
    """Returns the name of a data set or folder as used in the folders of runs.

    Raises:
        UserError: neither a known name nor a folder, or a folder with the name of a data set.
    """
    if data in DATASETS:
        return data
    folder = find_folder(data, DATASETS)
    name = folder_name(folder)
    if name.casefold() in (*DATASETS, *TAKEN):
        raise UserError(
            f"{data}: the name {name} is taken, and its run would stand in the same place, runs/"
            f"<model>-{name}; rename it, or link to it: ln -s {quote(str(folder))} my_{name}"
        )
    return name


def load_data(
    data: str, options: FolderOptions | None = None, console: Console | None = None
) -> ImageData:
    """Returns a data set by name, or a folder of images by path.

    A name in :data:`DATASETS` means the data set even if a folder of that name exists; ``./name``
    means the folder. See :func:`training.folder.read_folder` for the structure of a folder.

    Args:
        data: name or path.
        options: how to read a folder.
        console: console for a progress bar while files are read; None for no bar.

    Raises:
        UserError: as :func:`data_name`; a folder that is not a valid data set, folder options for a
            named data set, or a data set that cannot be downloaded.
    """
    name = data_name(data)
    if data in DATASETS:
        if options and (options.test_fraction or options.group_by is not None):
            raise UserError(
                f"{data} has parts of its own; --test-fraction and --group-by are for folders"
            )
        images = load_named(data, options)
        if options and (options.folds, options.fold) != (None, None):
            return named_fold(images, options)
        return images
    name += options.suffix if options else ""
    images = read_folder(find_folder(data, DATASETS), name=name, options=options, console=console)
    return replace(images, folder=data)


def load_named(name: str, layout: FolderLayout | None = None) -> ImageData:
    """Loads the data set ``name``; raises UserError if ``layout``, which is for folders, is set."""
    given = layout and (layout.labels, *layout.split_folders, *layout.labels_columns)
    if layout and (any(value is not None for value in given or ()) or layout.multi_label):
        raise UserError(
            f"{name} has labels and parts of its own; --labels, --labels-columns, --multi-label "
            "and --split-folders are for folders"
        )
    return DATASETS[name].load()
