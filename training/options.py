"""Options of reading a folder of images, shared by the command line and checkpoints."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FolderLayout:
    """Where the images of a folder stand and what names their classes, if it does not show that."""

    split_folders: tuple[str, ...] = ()
    """What folders inside DATA are for, where their names leave it open: train=Fit val=Check, and
    test=Final; or none: each folder is a class, whatever its name."""
    labels: str | None = None
    """CSV file that names the class of each image of DATA, which then needs no class folders."""
    labels_columns: tuple[str, ...] = ()
    """Its columns of the file and of the label, by name or by number from 1: file label, or 1 2;
    needed where their names do not tell, and where there are more than two or both or none name
    images."""


@dataclass(frozen=True, kw_only=True)
class FolderOptions(FolderLayout):
    """What to do where a folder of images to learn from does not say it itself."""

    skip_unreadable: bool = False
    """Leave out images that cannot be read, after naming them, instead of stopping; also where a
    class loses more than a tenth of its files."""
    allow_duplicates: bool = False
    """Go on where the same image is both learned from and held out, or stands in two classes."""
