"""A folder of labelled images: one folder per class, as it is or below train/ and val/."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.errors import UserError
from training.data import ImageData, Sample

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
HELD_OUT = 0.2
SPLIT_SEED = 0

_BY_MACHINES = ("__MACOSX", "@eaDir")  # thumbnails of macOS archives and of network drives
_NAMED = 5  # so many of a long list are written out


def folder_name(folder: Path) -> str:
    """Returns what runs on a folder are filed under: its name, or the name of the link to it.

    Letters of any script, digits, dots, hyphens and underscores stay; anything between them, such
    as spaces, becomes one underscore, so that the name needs no quotes in a command.

    Raises:
        UserError: nothing of the name is left.
    """
    whole = folder.resolve() if ".." in folder.parts else folder.absolute()
    name = re.sub(r"[^\w.-]+", "_", whole.name).strip("_")
    if not name:
        raise UserError(f"{whole}: runs cannot be filed under this name; use letters and digits")
    return name


def read_folder(folder: Path, *, name: str) -> ImageData:
    """Returns the labelled images of a folder; class names are folder names, sorted.

    It holds one folder of images per class, or ``train`` and ``val`` folders that do; a ``test``
    folder beside those is not read. Images are found at any depth, through links too. Hidden
    files and what machines leave behind (``._cat.jpg``, ``__MACOSX``) are passed over. What is
    not split yet is split by a fixed seed: 20 % of each class are held out, at least one image.

    Raises:
        UserError: fewer than two classes, a class without images, or with too few to hold one
            out, ``train`` and ``val`` that differ in their classes or are not both there, a
            folder that cannot be listed.
    """
    try:
        return _read(folder, name)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be listed ({error.strerror})") from error


def _read(folder: Path, name: str) -> ImageData:
    if not _is_split(folder):
        labels = _class_names(folder)
        train, val = _split(_class_files(folder, labels, least=2))
        return ImageData(name=name, labels=labels, train=train, val=val)
    roots = folder / "train", folder / "val"
    labels, held_out = (_class_names(root) for root in roots)
    if labels != held_out:
        raise UserError(f"{folder}: {_difference(labels, held_out)}; both need the same classes")
    train, val = (_labelled(_class_files(root, labels, least=1)) for root in roots)
    return ImageData(name=name, labels=labels, train=train, val=val)


def _is_split(folder: Path) -> bool:
    """Returns whether there are train/ and val/; UserError if one of them stands alone."""
    there = [part for part in ("train", "val") if (folder / part).is_dir()]
    if len(there) != 1:
        return bool(there)
    if any(_is_image(entry.name) for entry in (folder / there[0]).iterdir()):
        return False  # a class of that name: trains are photographed a lot
    missing = "val" if there == ["train"] else "train"
    raise UserError(
        f"{folder}: it holds only one of train/ and val/; add {missing}/, "
        f"or leave out {there[0]}/ and have 20 % held out"
    )


def _class_names(root: Path) -> tuple[str, ...]:
    entries = sorted(entry for entry in root.iterdir() if not _is_hidden(entry.name))
    for entry in entries:
        if entry.is_symlink() and not entry.exists():
            raise UserError(f"{entry}: a link to {os.readlink(entry)}, which is not there; mend it")
    names = tuple(entry.name for entry in entries if entry.is_dir())
    if len(names) >= 2:
        return names
    images = [entry.name for entry in entries if _is_image(entry.name)]
    found = f"one class folder ({names[0]})" if names else "no class folders"
    if images:
        found = f"images (such as {images[0]}, {len(images)} in all) but {found}"
    raise UserError(
        f"{root}: it holds {found}; an image folder holds at least two folders of images, "
        f"one per class, such as {root.name}/cat/1.jpg and {root.name}/dog/1.jpg"
    )


def _difference(train: Sequence[str], val: Sequence[str]) -> str:
    lacking = {
        "train": sorted(set(val) - set(train)),
        "val": sorted(set(train) - set(val)),
    }
    return " and ".join(f"{part}/ lacks {_some(names)}" for part, names in lacking.items() if names)


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _class_files(root: Path, labels: Sequence[str], *, least: int) -> list[list[Path]]:
    """Returns the sorted image files of each class; UserError names one with too few of them."""
    classes = [_images(root / label) for label in labels]
    for label, files in zip(labels, classes, strict=True):
        if not files:
            raise UserError(
                f"{root / label}: it holds no images ({', '.join(s[1:] for s in SUFFIXES)}); "
                "add some or remove the folder"
            )
        if len(files) < least:
            raise UserError(
                f"{root / label}: it holds {len(files)} image, and one to learn from and one to "
                "hold out are needed; add another or remove the folder"
            )
    return classes


def _images(folder: Path) -> list[Path]:
    """Returns every image file below ``folder``, sorted; a link into a loop is followed once."""
    found: list[str] = []
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        found += [os.path.join(here, name) for name in files if _is_image(name)]
    return [Path(file) for file in sorted(found)]


def _raise(error: OSError) -> None:
    raise error  # os.walk would pass over what it may not list


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _BY_MACHINES


def _is_image(name: str) -> bool:
    return not _is_hidden(name) and name.lower().endswith(SUFFIXES)


def _labelled(classes: Sequence[Sequence[Path]]) -> list[Sample]:
    return [(file, label) for label, files in enumerate(classes) for file in files]


def _split(classes: Sequence[Sequence[Path]]) -> tuple[list[Sample], list[Sample]]:
    """Returns samples to learn from and held-out ones, each with every class among them."""
    random = np.random.default_rng(SPLIT_SEED)
    train: list[list[Path]] = []
    val: list[list[Path]] = []
    for files in classes:
        count = max(1, round(HELD_OUT * len(files)))
        chosen = set(random.permutation(len(files))[:count].tolist())
        val.append([file for index, file in enumerate(files) if index in chosen])
        train.append([file for index, file in enumerate(files) if index not in chosen])
    return _labelled(train), _labelled(val)
