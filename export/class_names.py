"""Reads class names from a file, in the order of the logits."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.errors import UserError, first_line
from core.image_types import list_suffixes

IMAGENET = "imagenet"
MAX_LENGTH = 1024  # of a name, as in a manifest
_HEADS = ("class", "class_name", "classes", "label", "labels", "name")


def class_names(labels: str) -> tuple[str, ...]:
    """Returns the class names given by ``labels``.

    Args:
        labels: ``imagenet``, or a file: text with one name per line; JSON with a list, an object
            from index to name, or one from name to index; CSV with name, or index and name, per
            row.

    Raises:
        UserError: the file cannot be read, or the order of the classes is ambiguous.
    """
    if labels == IMAGENET:
        from models.imagenet import imagenet_labels

        return imagenet_labels()
    path = Path(labels)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--labels {labels}: cannot be read ({first_line(error)}); pass a file of class "
            "names (text, JSON or CSV in UTF-8), or imagenet"
        ) from None
    read = {".json": _from_json, ".csv": _from_csv}.get(path.suffix.lower(), _from_text)
    try:
        names = read(text)
        if not names:
            raise ValueError("no name in it")
        for index, name in enumerate(names):
            if not name or len(name) > MAX_LENGTH:
                raise ValueError(f"the name of class {index} is {name[:20]!r}")
    except (ValueError, RecursionError, csv.Error) as error:
        raise UserError(
            f"--labels {labels}: {first_line(error)}; it must hold one name for each class"
        ) from None
    return tuple(names)


def distinct(labels: Sequence[str]) -> list[str]:
    """Returns labels with the index added to those that stand for several classes.

    ImageNet has two classes "crane" and two "maillot" in many lists; answers, folders and the
    probabilities of Core ML go by name.
    """
    counts = Counter(labels)
    return [
        f"{label} ({index})" if counts[label] > 1 else label for index, label in enumerate(labels)
    ]


def _from_text(text: str) -> list[str]:
    return [line.strip() for line in text.rstrip().split("\n")] if text.strip() else []


def _from_json(text: str) -> list[str]:
    found = json.loads(text)
    if isinstance(found, list):
        return [_name(each) for each in found]
    if not isinstance(found, dict):
        raise ValueError("neither a list nor an object")
    if found and all(type(index) is int for index in found.values()):  # class_to_idx
        found = {index: name for name, index in found.items()}
    return _by_index([(str(index), _name(value)) for index, value in found.items()])


def _name(value: Any) -> str:
    """Returns the name in a JSON value: a string, or the last one of Keras's [wnid, name]."""
    name = value[-1] if isinstance(value, list) and value else value
    if not isinstance(name, str):
        raise ValueError(f"{json.dumps(value)[:40]} is no name")
    return name.strip()


def _from_csv(text: str) -> list[str]:
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text)) if row]
    widths = {len(row) for row in rows}
    suffixes = tuple(list_suffixes())
    files = (cell for row in rows if len(row) > 1 for cell in row)
    if file := next((cell for cell in files if cell.casefold().endswith(suffixes)), None):
        raise ValueError(
            f"it names images, such as {file[:40]}, whose labels go into --image-labels FILE; a "
            "run of train has its names, and needs neither"
        )
    if widths - {1, 2} or len(widths) > 1:
        raise ValueError(f"rows of {sorted(widths)} columns, not of a name, or of index and name")
    if widths == {1}:
        names = [row[0] for row in rows]
        return names[1:] if names[0].lower() in _HEADS else names
    rows = rows if rows and rows[0][0].isdecimal() else rows[1:]
    return _by_index([(index, name) for index, name in rows])


def _by_index(pairs: list[tuple[str, str]]) -> list[str]:
    for index, _ in pairs:
        if not index.isdecimal():
            raise ValueError(f"{index[:40]!r} is no index of a class")
    names = {int(index): name for index, name in pairs}
    if sorted(names) != list(range(len(pairs))):
        raise ValueError(f"its indices are not 0 to {len(pairs) - 1}, each once")
    return [names[index] for index in range(len(pairs))]
