"""Reads a CSV file with the labels of each image in a folder: any number of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError
from core.image_types import list_suffixes
from training.labels_file import (
    FILE,
    LABEL,
    Lines,
    Places,
    find_table,
    likely_columns,
    read_lines,
    slashed,
)
from training.scan import Scan, class_name, find_files, some

SEPARATORS = "|;"  # of labels in one cell
_SPLIT = re.compile(f"[{SEPARATORS}]")
_NO, _YES = ("0", "0.0", "false"), ("1", "1.0", "true")  # in any case
_UNCLEAR = ("", "-1", "-1.0")  # not mentioned, and uncertain, where findings of reports are labels
_MOSTLY = 0.5  # of a column's cells: more that are 0 or 1 are meant as a label's


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelSets:
    """Images with any number of labels.

    Attributes:
        labels: names of the labels, sorted.
        combinations: indices of labels that occur together, sorted; without any, where images have
            none.
        samples: files, in order, each with the index of its combination.
    """

    labels: tuple[str, ...]
    combinations: tuple[tuple[int, ...], ...]
    samples: tuple[tuple[Path, int], ...]


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where a line has what, counted from 0: the file, cells of labels, and a 0 or 1 for each."""

    file: int
    cells: tuple[int, ...]
    flags: Mapping[int, str]


def read_label_sets(
    folder: Path, labels: str, columns: Sequence[str], scan: Scan, *, least: int = 2
) -> LabelSets:
    """Returns the images that a CSV file names, with their labels.

    A line has a file, as for :func:`training.labels_file.labelled_files`, and labels in one cell,
    separated by ``|`` or ``;``, or a column with 0 or 1 for each label, or both. A file in several
    lines has the labels of all of them. Files without a label are kept.

    Args:
        folder: folder of the images, at any depth.
        labels: path of the CSV file, relative to the current folder or to ``folder``.
        columns: columns of the file and of labels, by name or by number from 1. Empty: the file's
            and the labels' by their usual names, and all with nothing but 0 and 1.
        scan: receives what is left out.
        least: least number of labels.

    Raises:
        UserError: it cannot be read, or its columns or files are ambiguous, or it has too few
            labels.
    """
    path = find_table(folder, labels)
    lines = read_lines(path, first=True)
    files = find_files(folder, scan)
    scan.use(path)
    places = Places((folder, path.parent), files)
    header = [value.strip() for value in lines[0][1]]
    headed = not any(_is_file(value, places) for value in header)
    rows = lines[1:] if headed else lines
    if not rows:
        raise UserError(f"{path}: it holds no lines below the names of its columns")
    if headed:
        found = _by_name(path, header, rows, columns, places, scan)
    else:
        found = _by_place(path, header, columns, places)
    sets: dict[Path, set[str]] = {}
    first: dict[str, tuple[int, str]] = {}  # line and cell in which a label stands first
    for number, row in rows:
        if len(row) < len(header):
            raise UserError(f"{path}, line {number}: {len(row)} columns, the first line has more")
        if not (name := slashed(row[found.file])):
            scan.leave_out("in a line without file", [Path(f"{path}, line {number}")])
            continue
        had: set[str] = set()
        for cell in (row[at] for at in found.cells):
            in_cell = {class_name(each.strip(), path) for each in _split(cell)}
            for label in in_cell:
                first.setdefault(label, (number, cell.strip()))
            had |= in_cell
        had |= {label for at, label in found.flags.items() if _flag(row[at]) in _YES}
        if "\0" in "".join((name, *had)):
            raise UserError(f"{path}, line {number}: no name may hold a NUL")
        sets.setdefault(places.find(name, f"{path}, line {number}"), set()).update(had - {""})
    _check_separated(path, first, scan)
    scan.leave_out(f"not named in {path.name}", [file for file in files if file not in sets])
    read = _indexed(path, sets, found.flags.values(), scan, least)
    _count(path, read, set(files), scan)
    return read


def _check_separated(path: Path, first: Mapping[str, tuple[int, str]], scan: Scan) -> None:
    """Checks that labels in cells are separated by ``|`` or ``;``; notes those with a comma.

    Args:
        path: the file.
        first: labels in cells, with the number of the line and the cell.
        scan: gets the note.

    Raises:
        UserError: a label is others of the file, with commas or blanks between them.
    """
    for label, (number, cell) in first.items():
        for between in (r"\s*,\s*", r"[\s,]+"):
            parts = [each for each in re.split(between, label) if each]
            if len(parts) > 1 and all(each in first for each in parts):
                raise UserError(
                    f"{path}, line {number}: {cell!r} would have the label {label!r}, and "
                    f"{some(parts)} are labels, too: separate labels in one cell by "
                    f"{' or '.join(SEPARATORS)}; where it is one label, call it otherwise"
                )
    if commas := sorted(repr(label) for label in first if "," in label):
        scan.note(
            f"warning: {path}: a label with a comma is one label, and so is {some(commas)}; "
            f"{' or '.join(SEPARATORS)} separates several in one cell"
        )


def _indexed(
    path: Path, sets: Mapping[Path, set[str]], columns: Iterable[str], scan: Scan, least: int
) -> LabelSets:
    """Returns labels and combinations of ``sets``; labels that no image has are left out."""
    names = sorted(set().union(*sets.values()))
    if len(names) < least:
        had = f"only the label {names[0]}" if names else "no label"
        raise UserError(f"{path}: its images have {had}, and two labels are needed")
    if least > 1 and (never := sorted(set(columns) - set(names))):
        scan.note(f"warning: {path}: no image has {some(never)}: left out")
    if least <= 1:
        names = sorted({*names, *columns})
    index = {name: at for at, name in enumerate(names)}
    each = {file: tuple(sorted(index[name] for name in had)) for file, had in sets.items()}
    combinations = tuple(sorted(set(each.values())))
    number = {combination: at for at, combination in enumerate(combinations)}
    samples = tuple((file, number[each[file]]) for file in sorted(each))
    return LabelSets(labels=tuple(names), combinations=combinations, samples=samples)


def _count(path: Path, found: LabelSets, files: Collection[Path], scan: Scan) -> None:
    """Notes how many labels and images there are; files that are not there do not count."""
    had = [found.combinations[index] for file, index in found.samples if file in files]
    several, without = sum(len(each) > 1 for each in had), had.count(())
    scan.note(
        f"{path}: {len(found.labels):,} labels of {len(had):,} images, of which {several:,} have "
        f"several and {without:,} none"
    )


def _split(cell: str) -> list[str]:
    return _SPLIT.split(cell)


def _is_file(value: str, places: Places) -> bool:
    return places.holds(value) or value.casefold().endswith(tuple(list_suffixes()))


def _by_name(
    path: Path,
    header: Sequence[str],
    rows: Lines,
    columns: Sequence[str],
    places: Places,
    scan: Scan,
) -> _Columns:
    """Returns the columns of a file whose first line names them."""
    named = [name.casefold() for name in header]
    if columns:
        chosen = [_column(path, header, name) for name in columns]
        if len(set(chosen)) < len(chosen) or len(chosen) < 2:
            raise UserError(
                f"--labels-columns {' '.join(columns)}: it takes the file's column and at least "
                "one of labels, each once"
            )
        file, *rest = chosen
    else:
        files = [at for at, name in enumerate(named) if name in FILE]
        if len(files) != 1:
            likely, _ = likely_columns(header, [row for _, row in rows], places)
            others = [at for at in range(len(header)) if at != likely]
            labels = [at for at in others if named[at] in LABEL or not _not_flag(rows, at)]
            example = shlex.join(header[at] for at in (likely, *(labels or others)[:2]))
            raise UserError(
                f"{path}: it has the columns {some(header)}; say which is the file's and which are "
                f"labels', such as --labels-columns {example}"
            )
        (file,) = files
        rest = [at for at in range(len(header)) if at != file]
    cells, unused, flags = [], [], {}
    for at in rest:
        wrong = _not_flag(rows, at)
        if wrong and named[at] not in LABEL and _leaves_open(rows, at):
            open_ = sum(_flag(row[at]) in _UNCLEAR for _, row in rows if at < len(row))
            raise UserError(
                f"{path}, line {wrong[0]}: {header[at]} is {wrong[1]!r}, and so unclear in "
                f"{open_:,} of {len(rows):,} lines, with 1 in others; where blank and -1 mean no, "
                "fill in 0 (1 for yes), or name the columns without it: --labels-columns FILE "
                "LABEL LABEL"
            )
        if named[at] in LABEL or (columns and wrong and _mostly_text(rows, at)):
            cells.append(at)
        elif wrong is None:
            flags[at] = _label(path, header[at])
        elif columns or not _mostly_text(rows, at):
            number, cell = wrong
            raise UserError(
                f"{path}, line {number}: {header[at]} is {cell!r}, and in the column of a label 0 "
                "or 1; mend it, or name the other columns: --labels-columns FILE LABEL LABEL"
            )
        else:
            unused.append(header[at])
    if unused:
        scan.note(f"{path}: columns that are not used: {some(unused)}")
    if not cells and not flags:
        raise UserError(
            f"{path}: no column of labels: name one label or labels, with labels that | or ; "
            "separates, or give each label a column with 0 and 1"
        )
    return _Columns(file, tuple(cells), flags)


def _by_place(path: Path, first: Sequence[str], columns: Sequence[str], places: Places) -> _Columns:
    """Returns the columns of a file without names: two, of file and labels."""
    if len(first) != 2 or columns:
        raise UserError(
            f"{path}: its first line ({some(first)}) names an image: with several columns of "
            "labels, or --labels-columns, it must name the columns"
        )
    file = int(not _is_file(first[0], places))
    return _Columns(file, (1 - file,), {})


def _column(path: Path, header: Sequence[str], name: str) -> int:
    if name in header:
        return header.index(name)
    if name.isdecimal() and 1 <= int(name) <= len(header):
        return int(name) - 1
    raise UserError(f"--labels-columns {name}: {path} has the columns {some(header)}")


def _not_flag(rows: Lines, at: int) -> tuple[int, str] | None:
    """Returns line number and content of the first cell that is neither 0 nor 1; None without."""
    cells = ((number, row[at].strip()) for number, row in rows if at < len(row))
    return next((each for each in cells if _flag(each[1]) not in (*_NO, *_YES)), None)


def _flag(cell: str) -> str:
    return cell.strip().casefold()


def _leaves_open(rows: Lines, at: int) -> bool:
    """Returns whether a column holds 1 and otherwise 0, nothing or -1: a label's, with gaps."""
    cells = {_flag(row[at]) for _, row in rows if at < len(row)}
    return cells.issubset((*_NO, *_YES, *_UNCLEAR)) and not cells.isdisjoint(_YES)


def _mostly_text(rows: Lines, at: int) -> bool:
    flags = sum(at < len(row) and _flag(row[at]) in (*_NO, *_YES) for _, row in rows)
    return flags <= _MOSTLY * len(rows)


def _label(path: Path, name: str) -> str:
    if not name or _SPLIT.search(name):
        raise UserError(
            f"{path}: a column of labels is called {name!r}: a label has a name, without "
            f"{' and '.join(SEPARATORS)}, which separate labels; rename it"
        )
    return class_name(name, path)
