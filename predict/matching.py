"""Matches the classes of a data set with the labels of an artifact, by name."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError, closest, first_line
from training.scan import some


@dataclass(frozen=True, kw_only=True, slots=True)
class Matching:
    """The labels of the classes of a data set.

    Attributes:
        indices: index of the label of each class, in the order of the classes; None without one.
        unknown: reason why a class has no label, by class.
        lacking: labels without a class.
    """

    indices: tuple[int | None, ...]
    unknown: Mapping[str, str]
    lacking: tuple[str, ...]


def match_classes(
    classes: Sequence[str], labels: Sequence[str], names: Mapping[str, str] | None = None
) -> Matching:
    """Matches each class with the label of the same name, after Unicode normalisation (NFC).

    Duplicate names are allowed only if classes and labels are equal and in the same order.

    Args:
        classes: classes of the data.
        labels: labels of the artifact.
        names: labels by class, where the names differ.

    Raises:
        UserError: no class has a label, or ``names`` has unknown classes or labels.
    """
    names = names or {}
    wanted = [_nfc(names.get(name, name)) for name in classes]
    known = [_nfc(label) for label in labels]
    _check_names(names, classes, labels)
    if wanted == known:
        return Matching(indices=tuple(range(len(labels))), unknown={}, lacking=())
    indices: list[int | None] = []
    unknown = {}
    for name, label in zip(classes, wanted, strict=True):
        count = known.count(label)
        indices.append(known.index(label) if count == 1 else None)
        if count != 1:
            unknown[name] = f"{count} labels are called so" if count else "no label is called so"
    if len(unknown) == len(classes):
        raise UserError(
            f"no class of the data ({some(classes)}) is a label of the artifact ({some(labels)}); "
            f"--map FILE says which is which, a line for each, such as {classes[0]},{labels[0]}"
        )
    taken = set(indices)
    lacking = tuple(label for index, label in enumerate(labels) if index not in taken)
    return Matching(indices=tuple(indices), unknown=unknown, lacking=lacking)


def read_names(path: Path) -> dict[str, str]:
    """Reads a CSV file without a header, with a class of the data and its label per line.

    Raises:
        UserError: it cannot be read, a line does not have two columns, or a class is repeated.
    """
    names: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if not row:
                    continue
                if len(row) != 2:
                    raise UserError(
                        f"{path}, line {reader.line_num}: {len(row)} columns, not two: a class of "
                        "the data and its label"
                    )
                name, label = (cell.strip() for cell in row)
                if names.setdefault(name, label) != label:
                    raise UserError(
                        f"{path}, line {reader.line_num}: {name} is {label}, and was "
                        f"{names[name]} before"
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({first_line(error)})") from error
    return names


def _check_names(names: Mapping[str, str], classes: Sequence[str], labels: Sequence[str]) -> None:
    for name, label in names.items():
        for what, value, allowed in (
            ("class of the data", name, classes),
            ("label of the artifact", label, labels),
        ):
            if _nfc(value) not in map(_nfc, allowed):
                raise UserError(f"--map: {value!r} is no {what}; {closest(value, allowed)}")


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)
