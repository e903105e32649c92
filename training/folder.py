"""Reads a folder of labelled images: a folder per class, in parts or not, or with a CSV file."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from core.errors import UserError, closest
from report.format import plural
from training.data import Combinations, ImageData, Sample
from training.folds import check_folds, one_fold
from training.grouping import check_apart, hold_out_groups, names_of_groups
from training.identity import HELD_OUT, digests_of, hold_out
from training.label_sets import LabelSets, read_label_sets
from training.labels_file import labelled_files
from training.look import look
from training.options import FolderLayout, FolderOptions
from training.scan import Scan, class_files, similar_names, some
from training.splits import Role, find_parts
from training.stratification import hold_out_sets

MOST_TESTED = 0.5  # largest fraction of the images to test on


def find_folder(data: str, names: Iterable[str]) -> Path:
    """Returns the folder at path ``data``, which is none of the known ``names``.

    Raises:
        UserError: there is no such folder; the message says what exists with a similar name.
    """
    folder = Path(os.path.expanduser(data))  # not every shell expands ~ in DATA=~/pets
    if not data or not os.path.isdir(folder):
        raise _not_found(data, folder, names)
    return folder


def _not_found(data: str, path: Path, names: Iterable[str]) -> UserError:
    """Returns the error for ``data`` that is neither a known name nor a folder."""
    if data and os.path.exists(path):
        return UserError(
            f"{data}: a file, not a folder of images; if it is an archive, unpack it first"
        )
    if path.name == data or not data:
        return UserError(
            f"unknown data {data!r}: neither a folder nor a data set; {closest(data, names)}"
        )
    missing, parent = path.absolute(), path.absolute().parent
    while not os.path.isdir(parent):
        missing, parent = parent, parent.parent
    beside = [entry.name for entry in os.scandir(parent)] if os.access(parent, os.R_OK) else []
    near = difflib.get_close_matches(missing.name, beside, n=1)
    end = f"did you mean {parent / near[0]}?" if near else "check the path"
    return UserError(f"{data}: there is no {missing.name} in {parent}; {end}")


def folder_name(folder: Path) -> str:
    """Returns the name for runs on a folder: its own name, or that of the link to it.

    Letters of any script, digits, dots, hyphens and underscores are kept; sequences of other
    characters become one underscore, so that the name needs no quoting in a shell.

    Raises:
        UserError: no character is left.
    """
    whole = folder.resolve() if ".." in folder.parts else folder.absolute()
    name = re.sub(r"[^\w.-]+", "_", whole.name).strip("_")
    if not name:
        raise UserError(f"{whole}: runs cannot be filed under this name; use letters and digits")
    return name


def read_folder(
    folder: Path,
    *,
    name: str,
    options: FolderOptions | None = None,
    console: Console | None = None,
) -> ImageData:
    """Returns the labelled images of a folder; class names are folder names, sorted.

    It has a folder of images per class, or such folders for training, validation and test
    (:func:`training.splits.find_parts`), or images named in a CSV file. Images are found at any
    depth, also through links. If there is no validation part, a fifth of each class is held out
    (:func:`training.identity.hold_out`), after a test part if one is asked for; whole groups if
    there are any (:func:`training.grouping.hold_out_groups`); or one of several folds
    (:func:`training.folds.one_fold`). Only then the files are read here,
    otherwise by :func:`training.look.look`.

    Raises:
        UserError: fewer than two classes, a class with too few images to hold one out, parts with
            different classes, ambiguous folder names, or a folder that cannot be listed; and as
            :func:`look`.
    """
    options = options or FolderOptions()
    check_folds(options)
    scan = Scan()
    parts: dict[Role, Sequence[Sample]]
    combinations: Combinations = ()
    if options.multi_label:
        sets = find_label_sets(folder, options, scan)
        labels, combinations = sets.labels, sets.combinations
        parts = {"train": sets.samples}
    else:
        classes = find_classes(folder, options, scan)
        labels = _same_labels(folder, classes, scan)
        parts = {role: _labelled(files, labels) for role, files in classes.items()}
    data = ImageData(
        name=name,
        labels=labels,
        train=parts["train"],
        val=parts.get("val", ()),
        test=parts.get("test", ()),
        folder=str(folder),
        scan=scan,
        combinations=combinations,
    )
    splits = _splits(folder, parts, options)
    if not splits and options.group_by is None:
        return data
    data = look(data, options, console)
    if options.group_by is not None:
        names = {
            part: names_of_groups(samples, folder, options.group_by)
            for part, samples in data.parts.items()
        }
        check_apart(names, options.group_by)
    for part, share in splits.items():
        before = data.train
        if part == "val" and options.folds is not None:
            data = one_fold(data, folder, options)
        else:
            groups = None
            if options.group_by is not None:
                groups = names_of_groups(before, folder, options.group_by)
            if data.combinations:
                train, held_out = hold_out_sets(data, before, groups, share)
            elif groups is None:
                train, held_out = hold_out(before, data.digests, share)
            else:
                train, held_out = hold_out_groups(before, data.digests, groups, labels, share)
            data = replace(data, **{"train": train, part: held_out})  # type: ignore[arg-type]
        if options.group_by is not None:
            everything, held = (
                len({*names_of_groups(samples, folder, options.group_by)})
                for samples in (before, data.parts[part])
            )
            data.scan.note(
                f"{folder}: {plural(everything, 'group')} by {options.group_by}, of which {held} "
                f"are for {part}"
            )
    if splits:
        _check_both(folder, data, options)
    return data


def _splits(
    folder: Path, parts: Mapping[Role, Sequence[Sample]], options: FolderOptions
) -> dict[str, float]:
    """Returns the parts to be taken from the training images, in order, with their shares.

    Raises:
        UserError: a test part is asked for and there is one, or its share is not in (0, 0.5]; or
            folds are asked for and there is a validation part.
    """
    splits = {}
    if fraction := options.test_fraction:
        if not 0 < fraction <= MOST_TESTED:
            raise UserError(
                f"--test-fraction {fraction:g}: it must be above 0 and at most {MOST_TESTED:g}"
            )
        if "test" in parts:
            raise UserError(
                f"--test-fraction {fraction:g}: {folder} has a test folder already, with "
                f"{len(parts['test']):,} images; leave it out"
            )
        splits["test"] = fraction
    if "val" not in parts:
        splits["val"] = HELD_OUT
    elif options.folds is not None:
        raise UserError(
            f"--folds {options.folds}: {folder} has a validation folder already, with "
            f"{len(parts['val']):,} images; move them to the training folder, or leave it out"
        )
    return splits


def find_label_sets(folder: Path, layout: FolderLayout, scan: Scan, *, least: int = 2) -> LabelSets:
    """Returns the images of a folder with any number of labels; arguments as for find_classes.

    Raises:
        UserError: as :func:`training.label_sets.read_label_sets`; no CSV file is named, or part
            folders are; or a folder that cannot be listed.
    """
    if layout.labels is None or layout.split_folders:
        also = " and no --split-folders" if layout.split_folders else ""
        raise UserError(f"--multi-label: it needs a CSV file, --labels FILE{also}")
    try:
        return read_label_sets(folder, layout.labels, layout.labels_columns, scan, least=least)
    except OSError as error:
        raise _unlisted(error) from error


def find_classes(
    folder: Path, layout: FolderLayout, scan: Scan, *, least: int = 2
) -> dict[Role, dict[str, list[Path]]]:
    """Returns the files of each class in each part; without parts, all are in ``train``.

    Args:
        folder: the user's folder.
        layout: how to read it.
        scan: receives notes.
        least: least number of training classes.

    Raises:
        UserError: as :func:`find_parts`, :func:`class_files` and :func:`labelled_files`; flags that
            do not go together; or a folder that cannot be listed.
    """
    if layout.labels is None and layout.labels_columns:
        given = " ".join(layout.labels_columns)
        raise UserError(f"--labels-columns {given}: of which file? name it, --labels FILE")
    if layout.labels is not None and layout.split_folders:
        raise UserError("--split-folders is for class folders, --labels for a folder without them")
    try:
        if layout.labels is not None:
            return {"train": labelled_files(folder, layout.labels, layout.labels_columns, scan)}
        parts = find_parts(folder, layout.split_folders, scan)
        return {
            role: class_files(path, scan, least=least if role == "train" else 1)
            for role, path in parts.items()
        }
    except OSError as error:
        raise _unlisted(error) from error


def _unlisted(error: OSError) -> UserError:
    return UserError(f"{error.filename}: cannot be listed ({error.strerror})")


def _same_labels(
    folder: Path, classes: Mapping[Role, Mapping[str, object]], scan: Scan
) -> tuple[str, ...]:
    """Returns the class names, checking that val has the same and test a subset of them.

    Raises:
        UserError: a part has other classes.
    """
    labels = classes["train"]
    similar = similar_names({name for names in classes.values() for name in names})
    for role, others in classes.items():
        new = sorted(others.keys() - labels.keys())
        lacking = sorted(labels.keys() - others.keys())
        if new or (lacking and role == "val"):
            lacks = {part: names for part, names in (("train", new), (role, lacking)) if names}
            said = " and ".join(f"{part} lacks {some(names)}" for part, names in lacks.items())
            raise UserError(
                "; ".join([f"{folder}: {said}", *similar, "they need the same classes"])
            )
        if lacking:
            scan.note(f"warning: {role} lacks {some(lacking)}: its figures are not of all classes")
    for pair in similar:
        scan.note(f"warning: {folder}: the classes {pair}, and are learned as two")
    return tuple(labels)


def _labelled(classes: Mapping[str, Sequence[Path]], labels: Sequence[str]) -> list[Sample]:
    return [(file, index) for index, label in enumerate(labels) for file in classes.get(label, ())]


def _check_both(folder: Path, data: ImageData, options: FolderOptions) -> None:
    """Raises UserError if all images of a class were held out, and none is left for training."""
    learned = {label for _, index in data.train for label in data.classes_of(index)}
    for index, label in enumerate(data.labels):
        if index in learned:
            continue
        held_out = [*data.val, *data.test]
        images = [sample for sample in held_out if index in data.classes_of(sample[1])]
        different = len(set(digests_of(images, data.digests)))
        same = f", {len(images)} times" if different < len(images) else ""
        said = f"holds 1 image{same}" if different == 1 else "has all its images in others, too"
        needed = "one to learn from and one to hold out"
        if options.test_fraction:
            needed = "one to learn from, one to hold out and one to test on"
            said = f"holds {plural(different, 'image')}"
        raise UserError(
            f"{folder}: class {label} {said}, and {needed} are needed; add another or remove the "
            "class"
        )
