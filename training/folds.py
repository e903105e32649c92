"""The parts of k-fold cross-validation, each of which is held out by one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from core.errors import UserError
from training.data import ImageData, Sample, labels_of
from training.grouping import names_of_groups, units_of
from training.identity import digests_of
from training.options import FolderOptions
from training.scan import some
from training.stratification import deal


def check_folds(options: FolderOptions) -> None:
    """Raises UserError if the number of parts is below 2, or the part is none of them."""
    folds, fold = options.folds, options.fold
    if folds is None:
        if fold is not None:
            raise UserError(f"--fold {fold}: of how many parts? add --folds")
        return
    if folds < 2:
        raise UserError(f"--folds {folds}: it must be at least 2")
    if fold is not None and not 1 <= fold <= folds:
        raise UserError(f"--fold {fold}: it must be from 1 to {folds}")


def runs_of(options: FolderOptions) -> list[FolderOptions]:
    """Returns the options of each run: one for each fold if all are asked for, else ``options``."""
    if options.folds is None or options.fold is not None:
        return [options]
    return [replace(options, fold=fold) for fold in range(1, options.folds + 1)]


def named_fold(data: ImageData, options: FolderOptions) -> ImageData:
    """Returns a named data set with a fold of its training images held out.

    The images that it holds out itself become test images, by which nothing is chosen.

    Raises:
        UserError: as :func:`check_folds` and :func:`one_fold`.
    """
    check_folds(options)
    test = data.test or data.val
    named = replace(data, name=data.name + options.suffix, val=(), test=test)
    return one_fold(named, None, options)


def one_fold(data: ImageData, folder: Path | None, options: FolderOptions) -> ImageData:
    """Returns ``data`` with the part of ``options`` held out of its training and held-out images.

    Args:
        data: the data set, with the digests of its files.
        folder: the user's folder; None for a named data set, which has no groups.
        options: number of parts, the part to hold out, and how groups are named.

    Raises:
        UserError: a class with fewer images, or of groups, than there are parts.
    """
    assert options.folds is not None
    unsorted = [*data.train, *data.val]
    order = zip(unsorted, digests_of(unsorted, data.digests), strict=True)
    samples = [sample for sample, _ in sorted(order, key=_place)]
    groups = None
    if options.group_by is not None:
        assert folder is not None
        groups = names_of_groups(samples, folder, options.group_by)
    held = _parts(samples, data, groups, options.folds) == (options.fold or 1)
    pairs = list(zip(samples, held, strict=True))
    return replace(
        data,
        train=[sample for sample, out in pairs if not out],
        val=[sample for sample, out in pairs if out],
    )


def _place(pair: tuple[Sample, bytes]) -> tuple[int, str]:
    """Returns where a sample stands: by class, then by path, or by digest without one."""
    (source, label), digest = pair
    return label, str(source) if isinstance(source, Path) else digest.hex()


def _parts(
    samples: Sequence[Sample], data: ImageData, names: Sequence[str] | None, folds: int
) -> npt.NDArray[np.int64]:
    """Returns int64 (N,): the part of each sample, from 1, with about as many of each class.

    They follow from the images' contents, not their names. Equal images are in the same part, as
    are those of a group.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    units, targets = units_of(digests_of(samples, data.digests), names), data.targets(samples)
    few = [
        label
        for index, label in enumerate(data.labels)
        if len(np.unique(units[targets[:, index]])) < folds
    ]
    if few:
        what = "different images" if names is None else "groups"
        raise UserError(
            f"--folds {folds}: {some(few)} {'has' if len(few) == 1 else 'have'} fewer {what} than "
            "that; use fewer folds, add images or remove the class"
        )
    if data.combinations:
        return deal(targets, units, [1 / folds] * folds)[units] + 1
    labels = labels_of(samples)
    if names is None:
        _, first = np.unique(units, return_index=True)  # a sample of each unit
        chosen = [held for _, held in StratifiedKFold(folds).split(first, labels[first])]
    else:
        split = StratifiedGroupKFold(folds).split(units, labels, units)
        chosen = [units[held] for _, held in split]
    parts = np.zeros(len(samples), dtype=np.int64)
    for number, held in enumerate(chosen, start=1):
        parts[np.isin(units, held)] = number
    return parts
