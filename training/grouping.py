"""Groups of images that belong together, and parts that keep each group on one side."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from core.errors import UserError, first_line
from training.data import Sample, labels_of
from training.identity import Digests, digests_of
from training.scan import some


def names_of_groups(samples: Sequence[Sample], folder: Path, pattern: str) -> list[str]:
    """Returns the name of each sample's group: what the first group of ``pattern`` matches.

    Args:
        samples: files.
        folder: the user's folder, relative to which the pattern is searched in their paths.
        pattern: regular expression.

    Raises:
        UserError: the pattern is none, has no group, or does not match all files.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"--group-by {pattern}: no regular expression ({first_line(error)})"
        ) from None
    if not expression.groups:
        raise UserError(
            f"--group-by {pattern}: it has no group; put what names the group of an image in "
            r"parentheses, such as '(patient\d+)'"
        )
    names, missing = [], []
    for source, _ in samples:
        assert isinstance(source, Path)
        path = Path(os.path.relpath(source, folder)).as_posix()
        match = expression.search(path)
        if match is None or match[1] is None:
            missing.append(path)
        else:
            names.append(match[1])
    if missing:
        raise UserError(
            f"--group-by {pattern}: it does not match {len(missing):,} of {len(samples):,} images: "
            f"{some(missing)}; every image needs a group"
        )
    return names


def check_apart(parts: Mapping[str, Sequence[str]], pattern: str) -> None:
    """Raises UserError if a group, by name, is in two parts."""
    seen: dict[str, str] = {}
    twice: dict[str, None] = {}  # an ordered set
    for part, names in parts.items():
        for name in dict.fromkeys(names):
            other = seen.setdefault(name, part)
            if other != part:
                twice[f"{name} ({other} and {part})"] = None
    if twice:
        raise UserError(
            f"--group-by {pattern}: {len(twice):,} groups are in two parts: {some(list(twice))}; "
            "move all images of a group to one part"
        )


def check_several(names: Sequence[str]) -> None:
    """Raises UserError if all images are in one group, by name."""
    if len(set(names)) == 1:
        raise UserError(
            f"all {len(names):,} images are in one group, {names[0]}, so none can be held out; "
            "let --group-by tell more groups apart, or add images of others"
        )


def hold_out_groups(
    samples: Sequence[Sample],
    known: Digests,
    names: Sequence[str],
    classes: Sequence[str],
    share: float,
) -> tuple[list[Sample], list[Sample]]:
    """Returns training and held-out samples, by whole groups.

    About ``share`` of each class is held out, at least one image. The groups are tried in the order
    of their smallest digests, which depends on content only, and one is held out if that brings the
    classes nearer to their shares. Groups that have an image in common, byte for byte, are one.

    Args:
        samples: files.
        known: digests of files already read.
        names: name of each sample's group.
        classes: names of the classes.
        share: fraction to hold out, in (0, 1).

    Raises:
        UserError: no group of a class can be held out without leaving none to learn from.
    """
    check_several(names)
    digests, labels = digests_of(samples, known), labels_of(samples).tolist()
    groups = joined_groups(names, [digest.hex() for digest in digests])
    images = [Counter[int]() for _ in range(max(groups) + 1)]  # of each class, for each group
    keys: dict[int, bytes] = {}
    for group, digest, label in zip(groups, digests, labels, strict=True):
        images[group][label] += 1
        keys[group] = min(digest, keys.get(group, digest))
    order = sorted(keys, key=lambda group: keys[group])
    totals = Counter(labels)
    wanted = {label: max(1, round(share * total)) for label, total in totals.items()}
    held: Counter[int] = Counter()
    chosen: set[int] = set()

    def fits(group: int) -> bool:
        """Returns whether some of every class of the group is left to learn from."""
        return all(held[label] + images[group][label] < totals[label] for label in images[group])

    for group in order:
        # How far the classes in it are from their shares, without the group and with it.
        lacks = [(wanted[label] - held[label], n) for label, n in images[group].items()]
        nearer = sum(lack**2 for lack, _ in lacks) > sum((lack - n) ** 2 for lack, n in lacks)
        if nearer and fits(group):
            chosen.add(group)
            held += images[group]
    for label in sorted(totals):
        if held[label]:
            continue
        # Only large groups have images of it: the smallest one.
        others = [group for group in order if images[group][label] and fits(group)]
        if not others:
            inside = {name for name, other in zip(names, labels, strict=True) if other == label}
            raise UserError(
                f"class {classes[label]}: none of its groups ({some(sorted(inside))}) can be held "
                "out, as no image of some class would be left to learn from; add images of other "
                "groups, or remove the class"
            )
        smallest = min(others, key=lambda group: images[group].total())
        chosen.add(smallest)
        held += images[smallest]
    parts: tuple[list[Sample], list[Sample]] = [], []
    for sample, group in zip(samples, groups, strict=True):
        parts[group in chosen].append(sample)
    return parts


def units_of(digests: Sequence[bytes], names: Sequence[str] | None) -> npt.NDArray[np.int64]:
    """Returns int64 (N,): the number of what each image must stay together with.

    That is its group, or, without groups, images that are equal byte for byte. They are numbered by
    their smallest digest, so numbers follow from content only.

    Args:
        digests: of each image.
        names: of each image's group; None without groups.
    """
    hexes = [digest.hex() for digest in digests]
    belongs: Sequence[object] = hexes if names is None else joined_groups(names, hexes)
    smallest: dict[object, str] = {}
    for unit, digest in zip(belongs, hexes, strict=True):
        smallest[unit] = min(digest, smallest.get(unit, digest))
    _, units = np.unique([smallest[unit] for unit in belongs], return_inverse=True)
    return np.asarray(units, dtype=np.int64)


def joined_groups(names: Sequence[str], digests: Sequence[str]) -> list[int]:
    """Returns the number of each image's group, after those with a common image became one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, rows = np.unique(names, return_inverse=True)
    _, columns = np.unique(digests, return_inverse=True)
    shape = (int(rows.max()) + 1, int(columns.max()) + 1)
    has = coo_array((np.ones(len(rows)), (rows, columns)), shape=shape).tocsr()
    _, joined = connected_components(has @ has.T, directed=False)
    return [int(group) for group in joined[rows]]
