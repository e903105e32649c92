"""A CSV file that says which class each image of a folder is of."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from core.errors import UserError, first_line
from training.scan import Scan, class_name, find_files, some

_SEPARATORS = ",;\t|"


def labelled_files(
    folder: Path, labels: str, columns: Sequence[str], scan: Scan
) -> dict[str, list[Path]]:
    """Returns the files of each class that a CSV file names, by sorted class name.

    A file is given by its path, from ``folder`` or from where the CSV file stands, or by its name
    alone, with or without its suffix, where only one file is called so.

    Args:
        folder: of the images, at any depth.
        labels: the CSV file, from here or from ``folder``; its first line names the columns.
        columns: those of file and label, by name or by number from 1; empty: those called so, or
            the only two.
        scan: gets what is left out.

    Raises:
        UserError: it cannot be read, its columns are not told, a file is named for two classes or
            could be several, fewer than two classes.
    """
    path = Path(os.path.expanduser(labels))
    if not path.exists() and (folder / path).is_file():
        path = folder / path
    header, rows = _read(path)
    at_file, at_label = _columns(path, header, columns)
    files = find_files(folder, scan)
    scan.use(path)
    places = _Places((folder, path.parent), files)
    label_of: dict[Path, str] = {}
    for number, row in rows:
        if max(at_file, at_label) >= len(row):
            raise UserError(f"{path}, line {number}: {len(row)} columns, the first line has more")
        name = row[at_file].strip().replace("\\", "/")  # from Windows
        label = class_name(row[at_label].strip(), path)
        if not name or not label:
            scan.leave_out("in a line without file or label", [Path(f"{path}, line {number}")])
            continue
        file = places.find(name, f"{path}, line {number}")
        if label_of.setdefault(file, label) != label:
            raise UserError(
                f"{path}, line {number}: {name} is {label}, and was {label_of[file]} before; an "
                "image has one class"
            )
    scan.leave_out(f"not named in {path.name}", [file for file in files if file not in label_of])
    classes: dict[str, list[Path]] = {label: [] for label in sorted(set(label_of.values()))}
    if len(classes) < 2:
        raise UserError(f"{path}: it names no two classes ({some(classes)}), and two are needed")
    for file in sorted(label_of):
        classes[label_of[file]].append(file)
    return classes


class _Places:
    """Finds files by what a line calls them: a path from one of ``roots``, or a name alone."""

    def __init__(self, roots: Sequence[Path], files: Sequence[Path]) -> None:
        self._roots = roots
        self._files = {os.path.abspath(file): file for file in files}
        self._named: dict[str, list[Path]] = {}
        for file in files:
            for name in {file.name, file.stem}:
                self._named.setdefault(name, []).append(file)

    def find(self, name: str, place: str) -> Path:
        """Returns the file; one that is not there comes back as the path it would have.

        Raises:
            UserError: it could be several.
        """
        paths = [root / name for root in self._roots]
        for path in paths:
            if file := self._files.get(os.path.abspath(path)):
                return file
        found = self._named.get(name, [])
        if len(found) > 1:
            raise UserError(
                f"{place}: {name} may be {some([str(file) for file in found])}; give its path in "
                f"{self._roots[0]}"
            )
        return found[0] if found else paths[0]


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Returns the first line, and the others with their numbers; empty ones are passed over."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        head = text.partition("\n")[0]
        separator = max(_SEPARATORS, key=head.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        lines = [(reader.line_num, row) for row in reader if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({first_line(error)})") from error
    if len(lines) < 2:
        raise UserError(f"{path}: it holds no lines below the names of its columns")
    return [name.strip() for name in lines[0][1]], lines[1:]


def _columns(path: Path, header: Sequence[str], chosen: Sequence[str]) -> tuple[int, int]:
    """Returns where file and label stand in a line, counted from 0."""
    listed = ", ".join(header)
    if not chosen:
        if {"file", "label"} <= set(header):
            return header.index("file"), header.index("label")
        if len(header) == 2:
            return 0, 1
        raise UserError(
            f"{path}: it has the columns {listed}; say which are the file's and the label's: "
            f"--labels-columns {header[0]} {header[-1]}"
        )
    if len(chosen) != 2:
        raise UserError(f"--labels-columns {' '.join(chosen)}: it takes two, of file and label")
    found = []
    for name in chosen:
        if name in header:
            found.append(header.index(name))
        elif name.isdecimal() and 1 <= int(name) <= len(header):
            found.append(int(name) - 1)
        else:
            raise UserError(f"--labels-columns {name}: {path} has the columns {listed}")
    return found[0], found[1]
