"""Scans a folder for class folders and image files, ignoring system files."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import UserError
from core.preprocess import ImageError, check_header

# System files of file systems, archives, network drives, desktops, notebooks; case-insensitive.
_BY_MACHINES = (
    "$recycle.bin",
    "#recycle",
    "@eadir",
    "__macosx",
    "__pycache__",
    "desktop.ini",
    "lost+found",
    "system volume information",
    "thumbs.db",
)
# Suffixes of labels, notes and code among the images, which are not tried as images.
_NOT_MEANT = (".csv", ".db", ".json", ".md", ".py", ".tsv", ".txt", ".xml", ".yaml", ".yml")
NAMED = 5  # most entries of a list that are written out


@dataclass
class Scan:
    """What was noticed while a data set was read.

    Attributes:
        notes: how folders and files were interpreted, one line each.
        unused: files that are not used, by reason.
    """

    notes: list[str] = field(default_factory=list)
    unused: dict[str, list[Path]] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Adds a line, unless it is there already."""
        if text not in self.notes:
            self.notes.append(text)

    def leave_out(self, reason: str, files: Iterable[Path]) -> None:
        """Records ``files`` as not used."""
        if files := list(files):
            self.unused.setdefault(reason, []).extend(files)

    def use(self, file: Path) -> None:
        """Removes ``file`` from the unused ones, as it is used, though not as an image."""
        for reason, files in list(self.unused.items()):
            left = [other for other in files if other.resolve() != file.resolve()]
            if not left:
                del self.unused[reason]
            else:
                self.unused[reason] = left

    def lines(self) -> list[str]:
        """Returns the notes, and one line that counts the files not used, by reason."""
        if not self.unused:
            return self.notes
        count = sum(map(len, self.unused.values()))
        reasons = ", ".join(in_words(reason, files) for reason, files in self.unused.items())
        return [*self.notes, f"not used: {count:,} {'file' if count == 1 else 'files'}: {reasons}"]


def in_words(reason: str, files: Sequence[Path]) -> str:
    """Returns a text: the number of files left out for a reason, and the first of them."""
    return f"{len(files):,} {reason} ({'' if len(files) == 1 else 'such as '}{files[0]})"


def some(names: Collection[str]) -> str:
    """Returns a text: the first names of a list, and the number of others."""
    rest = len(names) - NAMED
    return ", ".join(list(names)[:NAMED]) + (f" and {rest:,} more" if rest > 0 else "")


def is_by_machines(name: str) -> bool:
    """Returns whether an entry is hidden or a system file."""
    return name.startswith(".") or name.casefold() in _BY_MACHINES


def is_meant(file: Path) -> bool:
    """Returns whether a file may be an image, by its name.

    With the suffix of a text file, its header must be that of an image.
    """
    name = file.name
    return not is_by_machines(name) and (not is_named_otherwise(name) or is_image(file))


def is_named_otherwise(name: str) -> bool:
    """Returns whether a file has the suffix of labels, notes or code."""
    return name.lower().endswith(_NOT_MEANT)


def subfolders(root: Path, scan: Scan) -> list[Path]:
    """Returns the folders in ``root`` that contain files, sorted; notes the others.

    Raises:
        UserError: a broken link.
    """
    found: list[Path] = []
    empty: list[Path] = []
    for entry in sorted(root.iterdir()):
        if is_by_machines(entry.name):
            scan.leave_out("hidden or left by machines", [entry])
        elif entry.is_symlink() and not entry.exists():
            raise UserError(f"{entry}: a link to {os.readlink(entry)}, which is not there; mend it")
        elif entry.is_dir():
            (found if _holds_files(entry) else empty).append(entry)
    if empty:
        scan.note(f"empty, so no class: {some([str(folder) for folder in empty])}")
    return found


def direct_files(root: Path) -> list[Path]:
    """Returns the files directly in ``root`` that may be images, sorted."""
    return sorted(entry for entry in root.iterdir() if entry.is_file() and is_meant(entry))


def leave_out_loose(root: Path, scan: Scan, reason: str = "in no class folder") -> None:
    """Records the files directly in ``root``, and the reason for those that may be images."""
    for entry in sorted(root.iterdir()):
        if not entry.is_dir() and not is_by_machines(entry.name):
            meant = entry.is_file() and is_meant(entry)
            scan.leave_out(reason if meant else "not meant as an image", [entry])


def holds_images(folder: Path) -> bool:
    """Returns whether any file directly in ``folder`` is an image, by its header."""
    return any(is_image(file) for file in direct_files(folder))


def is_image(file: Path) -> bool:
    """Returns whether a file has the header of an image."""
    try:
        check_header(file)
    except ImageError:
        return False
    return True


def find_files(folder: Path, scan: Scan) -> list[Path]:
    """Returns the files below ``folder`` that may be images, sorted; records the others."""
    found: list[Path] = []
    for here, folders, files in walk_folders(folder):
        machines = [name for name in (*folders, *files) if is_by_machines(name)]
        scan.leave_out("hidden or left by machines", (Path(here, name) for name in machines))
        rest = [Path(here, name) for name in files if not is_by_machines(name)]
        meant = {file for file in rest if is_meant(file)}
        scan.leave_out("not meant as an image", (file for file in rest if file not in meant))
        found += meant
    return sorted(found)


def class_files(root: Path, scan: Scan, *, least: int = 2) -> dict[str, list[Path]]:
    """Returns the files of each class of a folder of class folders, by sorted class name.

    Names are normalised (NFC), so that folders made on a Mac and on Linux are the same class.

    Raises:
        UserError: fewer than ``least`` classes, a class without any file that may be an image, a
            name that is not UTF-8.
    """
    folders = subfolders(root, scan)
    classes: dict[str, list[Path]] = {}
    for folder in folders:
        files = find_files(folder, scan)
        if not files:
            raise UserError(f"{folder}: it holds no images; add some or remove the folder")
        classes.setdefault(class_name(folder.name, folder), []).extend(files)
    if len(classes) < least:
        raise _no_classes(root, folders, direct_files(root))
    leave_out_loose(root, scan)
    return dict(sorted(classes.items()))


def class_name(name: str, place: Path) -> str:
    """Returns ``name`` in NFC; raises UserError, naming ``place``, if it is not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(place).decode(errors="backslashreplace")
        raise UserError(
            f"{shown}: its name is not UTF-8, as labels must be; rename it (convmv renames many)"
        ) from None
    return unicodedata.normalize("NFC", name)


def similar_names(names: Iterable[str]) -> list[str]:
    """Returns a warning for each pair of ``names`` that differ only in case or outer spaces."""
    first: dict[str, str] = {}
    said = []
    for name in sorted(names):
        other = first.setdefault(name.strip().casefold(), name)
        if other != name:
            said.append(f"{other!r} and {name!r} differ only in case or outer blanks")
    return said


def _holds_files(folder: Path) -> bool:
    """Returns whether the folder contains any file, at any depth, except system files."""
    return any(not all(map(is_by_machines, files)) for _, _, files in walk_folders(folder))


def _raise(error: OSError) -> None:
    raise error  # os.walk would skip folders that it cannot list


def walk_folders(
    folder: Path, onerror: Callable[[OSError], object] = _raise
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yields each folder from ``folder`` down, with the names of folders and files in it.

    System folders are listed but not entered; links that form a loop are followed once.

    Args:
        folder: the root.
        onerror: called with the exception for a folder that cannot be listed and is skipped.
    """
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, onerror=onerror, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        files.sort()
        yield here, folders, files
        folders[:] = sorted(name for name in folders if not is_by_machines(name))


def _no_classes(root: Path, folders: Sequence[Path], loose: Sequence[Path]) -> UserError:
    names = ", ".join(folder.name for folder in folders)
    found = f"one class folder ({names})" if folders else "no class folders"
    if loose:
        found = f"images (such as {loose[0].name}, {len(loose)} in all) but {found}"
    return UserError(
        f"{root}: it holds {found}; an image folder holds at least two folders of images, one per "
        f"class, such as {root.name}/cat/1.jpg and {root.name}/dog/1.jpg, or comes with a CSV file "
        "of labels (--labels FILE)"
    )
