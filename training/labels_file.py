"""Reads a CSV file with the class of each image in a folder."""

from __future__ import annotations

import csv
import io
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from core.errors import UserError, first_line
from core.image_types import list_suffixes
from training.scan import Scan, class_name, find_files, some

Lines = list[tuple[int, list[str]]]  # of a CSV file, with their numbers

_SEPARATORS = ",;\t|"
# Known names of the columns, case-insensitive.
FILE = {"file", "filename", "file_name", "filepath", "image", "image_name", "img", "path"}
LABEL = {"label", "labels", "class", "class_name", "category", "target"}


def labelled_files(
    folder: Path, labels: str, columns: Sequence[str], scan: Scan
) -> dict[str, list[Path]]:
    """Returns the files of each class in a CSV file, by sorted class name.

    A file is given by its path, relative to ``folder`` or to the CSV file, or by its name alone, if
    that is unique; each with or without suffix.

    Args:
        folder: folder of the images, at any depth.
        labels: path of the CSV file, relative to the current folder or to ``folder``; it may have a
            header line.
        columns: columns of file and label, by name or by number from 1. Empty: found by their
            names, or, of two columns, by which one names images. With numbers, an ambiguous first
            line is taken as data.
        scan: receives what is left out.

    Raises:
        UserError: it cannot be read, its columns or its first line are ambiguous, a file has two
            classes or its name is ambiguous, or there are fewer than two classes.
    """
    path = find_table(folder, labels)
    lines = read_lines(path)
    files = find_files(folder, scan)
    scan.use(path)
    places = Places((folder, path.parent), files)
    first = [value.strip() for value in lines[0][1]]
    headed = _names_columns(first, [row for _, row in lines[1:]], columns, places)
    likely = likely_columns(first, [row for _, row in lines[1:]], places)
    numbers = " ".join(str(at + 1) for at in likely)
    spelt = shlex.join(first[at] for at in likely)
    if headed is None and not columns:
        raise UserError(
            f"{path}: its first line ({', '.join(first)}) may name the columns, or an image that "
            f"is not there; say which are the file's and the label's: --labels-columns {spelt} if "
            f"it names them, --labels-columns {numbers} if it does not"
        )
    rows = lines[1:] if headed else lines
    if not rows:
        raise UserError(f"{path}: it holds no lines below the names of its columns")
    if columns:
        at_file, at_label = _chosen(path, first if headed else (), len(first), columns)
    elif found := _called(first) or _by_content(rows, len(first), places):
        at_file, at_label = found
    else:
        raise UserError(
            f"{path}: it has the columns {', '.join(first)}; say which are the file's and the "
            f"label's, such as --labels-columns {spelt if headed else numbers}; or --multi-label, "
            "if the others have a label's 0 or 1"
        )
    label_of: dict[Path, str] = {}
    named: dict[Path, None] = {}  # an ordered set
    for number, row in rows:
        if max(at_file, at_label) >= len(row):
            raise UserError(f"{path}, line {number}: {len(row)} columns, the first line has more")
        name = slashed(row[at_file])
        label = class_name(row[at_label].strip(), path)
        if "\0" in name + label:
            raise UserError(
                f"{path}, line {number}: {name!r} is {label!r}, and no name may hold a NUL"
            )
        if not name:
            scan.leave_out("in a line without file", [Path(f"{path}, line {number}")])
            continue
        file = places.find(name, f"{path}, line {number}")
        named[file] = None
        if not label:
            continue
        if label_of.setdefault(file, label) != label:
            raise UserError(
                f"{path}, line {number}: {name} is {label}, and was {label_of[file]} before; an "
                "image has one class, or --multi-label takes several"
            )
    scan.leave_out("without a label", [file for file in named if file not in label_of])
    scan.leave_out(f"not named in {path.name}", [file for file in files if file not in named])
    joined = sorted({label for label in label_of.values() if "|" in label or ";" in label})
    if joined:
        scan.note(
            f"warning: {path}: a class is called {some(joined)}: --multi-label reads that as "
            "several labels"
        )
    classes: dict[str, list[Path]] = {label: [] for label in sorted(set(label_of.values()))}
    if len(classes) < 2:
        raise UserError(f"{path}: it names no two classes ({some(classes)}), and two are needed")
    for file in sorted(label_of):
        classes[label_of[file]].append(file)
    return classes


def find_table(folder: Path, labels: str) -> Path:
    """Returns the path of a CSV file, relative to the current folder or to ``folder``.

    Raises:
        UserError: it is in neither, or a folder.
    """
    path = Path(os.path.expanduser(labels))
    there = [each for each in (path, folder / path) if each.exists()]
    if not there:
        raise UserError(f"--labels {labels}: No such file, neither here nor in {folder}")
    if file := next((each for each in there if not each.is_dir()), None):
        return file
    raise UserError(
        f"--labels {labels}: it is a folder; name the CSV file with the labels of the images, or "
        "leave it out where the folders of the images are their classes"
    )


class Places:
    """Finds files by a path relative to one of ``roots``, or by their name alone.

    Both may lack the suffix.
    """

    def __init__(self, roots: Sequence[Path], files: Sequence[Path]) -> None:
        self._roots = roots
        self._files = {os.path.abspath(file): file for file in files}
        self._named: dict[str, list[Path]] = {}
        for path, file in self._files.items():
            for name in {file.name, file.stem, os.path.splitext(path)[0]}:
                self._named.setdefault(name, []).append(file)

    def holds(self, name: str) -> bool:
        """Returns whether ``name`` refers to an existing file."""
        name = slashed(name)
        paths = [os.path.abspath(root / name) for root in self._roots]
        return any(each in self._named or each in self._files for each in (name, *paths))

    def find(self, name: str, place: str) -> Path:
        """Returns the path of the file; for a missing file, the path it would have.

        Raises:
            UserError: the name is ambiguous.
        """
        paths = [root / name for root in self._roots]
        whole = [os.path.abspath(path) for path in paths]
        for path in whole:
            if file := self._files.get(path):
                return file
        found = next((self._named[each] for each in (*whole, name) if each in self._named), [])
        if len(found) > 1:
            raise UserError(
                f"{place}: {name} may be {some([str(file) for file in found])}; give its path in "
                f"{self._roots[0]}"
            )
        return found[0] if found else paths[0]


def slashed(name: str) -> str:
    """Returns a path with ``/``, without blanks around it."""
    return name.strip().replace("\\", "/")  # from Windows


def read_lines(path: Path, *, first: bool = False) -> Lines:
    """Returns the non-empty lines with their numbers.

    Args:
        path: of the file.
        first: whether a comma in the first line separates columns, else a semicolon and so on;
            otherwise the most frequent of them does.

    Raises:
        UserError: no CSV file in UTF-8, or it is empty, or a line has more cells than the first.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        head = text.lstrip("\r\n").partition("\n")[0]
        separator = max(_SEPARATORS, key=head.count)
        if first:
            separator = next((each for each in _SEPARATORS if each in head), ",")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        lines = [(reader.line_num, row) for row in reader if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({first_line(error)})") from error
    if not lines:
        raise UserError(f"{path}: it holds no lines")
    width = len(lines[0][1])
    for number, row in lines:
        if any(cell.strip() for cell in row[width:]):
            raise UserError(
                f"{path}, line {number}: {len(row)} cells, the first line has {width}; separate "
                f"several labels in one cell by |, and put a cell with {separator!r} in it in "
                'double quotes: "..."'
            )
    return lines


def _names_columns(
    first: Sequence[str],
    below: Sequence[Sequence[str]],
    columns: Sequence[str],
    places: Places,
) -> bool | None:
    """Returns whether the first line is a header; None if that cannot be decided.

    A line of a missing image must not be taken for a header, as it would be lost silently.
    """
    if _called(first) or any(name in first and not name.isdecimal() for name in columns):
        return True
    suffixes = tuple(list_suffixes())
    if any(map(places.holds, first)) or any(_has_suffix(value, suffixes) for value in first):
        return False
    values = [
        Counter(row[at].strip() for row in below if at < len(row)) for at in range(len(first))
    ]
    if any(value in counts for value, counts in zip(first, values, strict=True)):
        return False  # other images have the same label
    told = (  # images, or labels of several each: the first line is neither
        all(count > 1 or _has_suffix(value, suffixes) for value, count in counts.items())
        for counts in values
        if counts
    )
    return True if any(told) else None


def _has_suffix(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.casefold().endswith(suffixes)


def _called(header: Sequence[str]) -> tuple[int, int] | None:
    """Returns the columns of file and label, from 0, if each has exactly one known name."""
    names = [name.casefold() for name in header]
    if "file" in names and "label" in names:
        return names.index("file"), names.index("label")
    files, labels = (
        [at for at, name in enumerate(names) if name in spellings] for spellings in (FILE, LABEL)
    )
    return (files[0], labels[0]) if len(files) == len(labels) == 1 else None


def _by_content(
    rows: Sequence[tuple[int, Sequence[str]]], width: int, places: Places
) -> tuple[int, int] | None:
    """Returns the columns of file and label, from 0, if only one of two names files."""
    if width != 2:
        return None
    name_files = [any(places.holds(row[at]) for _, row in rows if at < len(row)) for at in (0, 1)]
    if name_files == [True, False]:
        return 0, 1
    return (1, 0) if name_files == [False, True] else None


def likely_columns(
    first: Sequence[str], rows: Sequence[Sequence[str]], places: Places
) -> tuple[int, int]:
    """Returns the columns, from 0, that may be the file's and the label's, for an example.

    The file's is the first that names an image, best with its suffix, else the first with a usual
    name, else the first;
    the label's is another one with a usual name, else the one with the fewest values, but more
    than one; of several such, the last.

    Args:
        first: the first line.
        rows: the others.
        places: of the images.
    """
    names = [name.casefold() for name in first]
    cells = [{row[at].strip() for row in rows if at < len(row)} for at in range(len(first))]
    suffixes = tuple(list_suffixes())

    def unlike_files(at: int) -> tuple[bool, bool, bool]:
        suffixed = any(_has_suffix(cell, suffixes) for cell in cells[at])
        return not suffixed, not any(map(places.holds, cells[at])), names[at] not in FILE

    file = min(range(len(first)), key=unlike_files)
    rest = [at for at in range(len(first)) if at != file] or [file]

    def unlike_labels(at: int) -> tuple[bool, bool, int, int]:
        return names[at] not in LABEL, len(cells[at]) < 2, len(cells[at]), -at

    return file, min(rest, key=unlike_labels)


def _chosen(
    path: Path, header: Sequence[str], width: int, chosen: Sequence[str]
) -> tuple[int, int]:
    """Returns the chosen columns of file and label, from 0, in lines of ``width`` columns."""
    if len(chosen) != 2:
        raise UserError(f"--labels-columns {' '.join(chosen)}: it takes two, of file and label")
    found = []
    for name in chosen:
        if name in header:
            found.append(header.index(name))
        elif name.isdecimal() and 1 <= int(name) <= width:
            found.append(int(name) - 1)
        else:
            has = f"the columns {', '.join(header)}" if header else f"{width} without names"
            raise UserError(f"--labels-columns {name}: {path} has {has}")
    return found[0], found[1]
