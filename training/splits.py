"""Recognises the training, validation and test folders of a data set by their names."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from core.errors import UserError
from training.scan import Scan, find_files, holds_images, leave_out_loose, some, subfolders

Role = Literal["train", "val", "test"]
ROLES: tuple[Role, ...] = get_args(Role)

_SPELLINGS: Mapping[str, Role] = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "validations": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "tests": "test",
}
# Words that may accompany the part's name, as in seg_train, training_set and train_images.
_BESIDE = {"data", "dataset", "folder", "image", "images", "img", "imgs", "photos", "pictures"}
_BESIDE |= {"samples", "seg", "split"}
_WORD = re.compile(r"[^\W\d_]+")  # years and numbers, as in train2017, are ignored
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_DONE = {"train": "learned from", "val": "held out", "test": "tested on"}


def find_parts(folder: Path, chosen: Sequence[str], scan: Scan) -> dict[Role, Path]:
    """Returns the folder of class folders of each part; there is always a ``train``.

    A folder that contains only one folder is entered, as archives often unpack that way.

    Args:
        folder: the user's folder.
        chosen: ``("none",)`` or ``("train=FOLDER", "val=FOLDER", ...)``, below ``folder``; empty to
            recognise the names.
        scan: receives a note that says which folder is which part.

    Raises:
        UserError: ambiguous names, or chosen folders that do not exist.
    """
    if chosen and tuple(chosen) != ("none",):
        parts = _chosen_parts(folder, chosen)
        _leave_out_beside(folder, parts.values(), scan)
        return _described(folder, parts, scan)
    root = _entered(folder, scan)
    parts = {} if chosen else _parts_by_name(folder, root, scan)
    if parts:
        return _described(root, parts, scan)
    if not chosen:
        _check_no_parts(folder, root)
    if root != folder:
        scan.note(f"{folder}: its classes are the folders in {root}")
    return {"train": root}


def role_of(name: str) -> tuple[Role, frozenset[str]] | None:
    """Returns the part in a folder's name, and the other words; None if it names no part.

    ``seg_Train2017`` gives ``train`` and the other word ``seg``.
    """
    words = [
        word.casefold().removesuffix("set")  # trainset, or a train_set
        for word in _WORD.findall(_CAMEL.sub(" ", unicodedata.normalize("NFC", name)))
    ]
    roles = {_SPELLINGS[word] for word in words if word in _SPELLINGS}
    if len(roles) != 1:
        return None
    return roles.pop(), frozenset(word for word in words if word and word not in _SPELLINGS)


def _check_no_parts(folder: Path, root: Path) -> None:
    """Raises UserError if all folders of ``root`` contain folders of equal names and no images.

    They are then probably parts of a data set with names that are not recognised.
    """
    folders = subfolders(root, Scan())
    inside = [{each.name for each in subfolders(part, Scan())} for part in folders]
    alike = len(inside) > 1 and len(inside[0]) > 1 and all(names == inside[0] for names in inside)
    if alike and not any(map(holds_images, folders)):
        names = [str(part.relative_to(folder)) for part in folders]
        roles = " ".join(f"{role}={name}" for role, name in zip(ROLES, names, strict=False))
        raise UserError(
            f"{folder}: {_listed(folders)} hold folders of the same names and may be parts of a "
            f"data set or classes; say which, such as --split-folders {roles}, or --split-folders "
            "none if each folder is a class"
        )


def _parts_by_name(folder: Path, root: Path, scan: Scan) -> dict[Role, Path]:
    """Returns the parts named in ``root``; empty if its folders are class folders.

    If a name could be either, the content decides: a class contains images, a part contains folders
    of images. If it is still ambiguous, it is refused.
    """
    folders = subfolders(root, Scan())
    named = _named(folders)
    if not named:
        return {}
    twice = [paths for paths in named.values() if len(paths) > 1]
    if twice:
        raise _open(folder, root, named, f"{_listed(twice[0])} are both for the same")
    only = {role: paths[0] for role, paths in named.items()}
    if set(only) == {"train"}:
        if not holds_images(only["train"]):
            raise _open(folder, root, named, "there is none beside it to hold out or to test on")
        scan.note(f"{only['train']}: a class, as it holds images and no part is beside it")
        return {}
    parts = {role: path for role, path in only.items() if _holds_classes(path)}
    if "train" not in parts:
        raise _open(folder, root, named, "none to learn from holds class folders")
    if "val" in only:
        parts["val"] = only["val"]  # without class folders it is refused
    unlabelled = only.get("test") if "test" not in parts else None
    leave_out_loose(root, scan)
    for other in subfolders(root, scan):
        if other not in parts.values():
            reason = "in no class folder" if other == unlabelled else "beside the parts"
            scan.leave_out(reason, find_files(other, scan))
    return parts


def _named(folders: Sequence[Path]) -> dict[Role, list[Path]]:
    """Returns the folders whose names name a part.

    The other words of a name must be common ones, or occur in another part's name: pets_train and
    pets_test, but not train_station.
    """
    marked = {path: told for path in folders if (told := role_of(path.name))}
    named: dict[Role, list[Path]] = {}
    for path, (role, words) in marked.items():
        pair = any(words == others and role != other for other, others in marked.values())
        if words <= _BESIDE or pair:
            named.setdefault(role, []).append(path)
    return named


def _holds_classes(folder: Path) -> bool:
    """Returns whether a folder contains folders of images rather than images."""
    inner = _entered(folder, Scan())
    count = len(subfolders(inner, Scan()))
    return count > 1 or (count == 1 and not holds_images(inner))


def _entered(folder: Path, scan: Scan) -> Path:
    """Returns the folder, at any depth, that contains the class folders or parts.

    A folder is entered if it is the only one and contains folders itself; what is beside it is
    recorded.
    """
    inside = subfolders(folder, Scan())
    if len(inside) != 1 or holds_images(folder) or not subfolders(inside[0], Scan()):
        return folder
    subfolders(folder, scan)
    leave_out_loose(folder, scan)
    return _entered(inside[0], scan)


def _leave_out_beside(folder: Path, parts: Collection[Path], scan: Scan) -> None:
    """Records the files below ``folder`` that are in none of ``parts``."""
    if folder in parts:
        return
    leave_out_loose(folder, scan, "beside the parts")
    for entry in subfolders(folder, scan):
        if any(entry in part.parents for part in parts):
            _leave_out_beside(entry, parts, scan)
        elif entry not in parts:
            scan.leave_out("beside the parts", find_files(entry, scan))


def _described(root: Path, parts: Mapping[Role, Path], scan: Scan) -> dict[Role, Path]:
    """Returns the folder of class folders of each part, and notes them in ``scan``."""
    entered = {role: _entered(parts[role], scan) for role in ROLES if role in parts}
    said = [f"{_DONE[role]} {path.relative_to(root)}/" for role, path in entered.items()]
    if "val" not in entered:
        said.insert(1, "20 % of it held out")
    scan.note(f"{root}: {', '.join(said)}")
    return entered


def _chosen_parts(folder: Path, chosen: Sequence[str]) -> dict[Role, Path]:
    parts: dict[Role, Path] = {}
    for choice in chosen:
        role, _, name = choice.partition("=")
        if role not in ROLES or not name or role in parts:
            raise UserError(
                f"--split-folders {' '.join(chosen)}: it takes train=FOLDER and any of val=FOLDER "
                "and test=FOLDER, once each, or none if each folder is a class"
            )
        inside = Path(os.path.relpath(folder / name, folder))
        if ".." in inside.parts:
            raise UserError(
                f"--split-folders {choice}: the folder must lie below {folder}, such as "
                f"{role}=NAME for {folder / 'NAME'}"
            )
        if not (folder / inside).is_dir():
            raise UserError(f"--split-folders {choice}: there is no folder {folder / inside}")
        parts[role] = folder / inside
    if "train" not in parts or len(set(parts.values())) < len(parts):
        raise UserError(
            f"--split-folders {' '.join(chosen)}: it needs train=FOLDER, and another folder for "
            "each part"
        )
    return parts


def _open(folder: Path, root: Path, named: Mapping[Role, Sequence[Path]], why: str) -> UserError:
    paths = [path for role in ROLES for path in named.get(role, ())]
    given = {
        "train": "FOLDER",
        **{role: str(named[role][0].relative_to(folder)) for role in ROLES if role in named},
    }
    example = " ".join(f"{role}={name}" for role, name in given.items())
    return UserError(
        f"{root}: {_listed(paths)} may be parts of a data set or classes ({why}); "
        f"say which: --split-folders {example}, or --split-folders none if each folder is a class"
    )


def _listed(paths: Sequence[Path]) -> str:
    return some([f"{path.name}/" for path in paths])
