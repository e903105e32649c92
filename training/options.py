"""Options for reading a folder of images, used by the command line and stored in checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from core.errors import UserError

LoggerName = Literal["tensorboard", "csv", "wandb", "mlflow"]


@dataclass(frozen=True, kw_only=True)
class FolderLayout:
    """The layout of a folder of images, where its folder names do not show it."""

    split_folders: tuple[str, ...] = ()
    """Purpose of folders inside DATA, if their names are ambiguous: train=Fit val=Check, and
    test=Final; or none: each folder is a class, whatever its name."""
    labels: str | None = None
    """CSV file with the class of each image of DATA, instead of class folders."""
    labels_columns: tuple[str, ...] = ()
    """Its columns of file and label, by name or by number from 1, such as file label, or 1 2;
    needed if they cannot be recognised by their names or contents. With --multi-label: of the file
    and of one label or more."""
    multi_label: bool = False
    """An image of --labels has any number of labels: several in a cell, separated by | or ;, or a
    column with 0 or 1 for each."""


@dataclass(frozen=True, kw_only=True)
class FolderOptions(FolderLayout):
    """Options for a folder of training images."""

    skip_unreadable: bool = False
    """Report and leave out images that cannot be read, instead of stopping; even if a class loses
    more than a tenth of its files."""
    allow_duplicates: bool = False
    """Allow the same image in training and validation, or in two classes."""
    test_fraction: float = 0.0
    """Fraction of each class to hold out as test images, used once, for the final figures, if DATA
    has no test folder; 0 for none."""
    folds: int | None = None
    """k-fold cross-validation: split DATA into so many parts and train as many networks, each of
    which holds one part out; writes their mean and spread."""
    fold: int | None = None
    """With --folds: the part to hold out, from 1; None: each in turn."""
    group_by: str | None = None
    """Regular expression that is searched in the path of each image in DATA; its first group names
    what belongs together, such as '(patient\\d+)'. All images of a group are in the same part."""

    @property
    def suffix(self) -> str:
        """Returns what is added to the name of the data for a run that holds out one fold."""
        return "" if self.fold is None else f"-fold{self.fold}of{self.folds}"

    @property
    def flags(self) -> tuple[str, ...]:
        """Returns the flags, with their values, that are not at their defaults."""
        flags: list[str] = []
        for field in fields(FolderOptions):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            flags.append(f"--{field.name.replace('_', '-')}")
            if not isinstance(value, bool):
                flags += map(str, value) if isinstance(value, tuple) else [str(value)]
        return tuple(flags)


def check_restart(*, resume: bool, fresh: bool) -> None:
    """Raises UserError if a run is to be continued and dropped at the same time."""
    if resume and fresh:
        raise UserError(
            "--resume and --fresh: one continues the unfinished run, the other drops it; leave "
            "one out"
        )
