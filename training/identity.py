"""Identifies images by their content, independent of their names and paths."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from training.data import ImageData, Sample

HELD_OUT = 0.2
DIGEST_BYTES = 16
RUN_PLAN, IMAGE_LIST = "run.json", "images.csv"  # in the folder of a run
_COLUMNS = ("part", "label", "digest", "file")  # columns of a list of images

Digests = Mapping[Path, bytes]  # digests of files already read


def digest_of(source: Path | Image.Image) -> bytes:
    """Returns the BLAKE2b digest of a file's bytes, or of an image's mode, size and pixels."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    if isinstance(source, Path):
        with source.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    else:
        digest.update(f"{source.mode} {source.size}".encode())
        digest.update(source.tobytes())
    return digest.digest()


def digests_of(samples: Iterable[Sample], known: Digests) -> list[bytes]:
    """Returns the digest of each sample; files in ``known`` are not read."""
    return [
        known[source] if isinstance(source, Path) and source in known else digest_of(source)
        for source, _ in samples
    ]


def part_digests(data: ImageData) -> dict[str, list[bytes]]:
    """Returns the digest of each sample of each part."""
    return {part: digests_of(samples, data.digests) for part, samples in data.parts.items()}


def hold_out(
    samples: Sequence[Sample], known: Digests, share: float = HELD_OUT
) -> tuple[list[Sample], list[Sample]]:
    """Returns training and held-out samples; about ``share`` of each class, at least 1 image.

    The samples with the smallest digests of a class are held out. This is pseudo-random and depends
    on content only: renaming a file changes nothing, and adding or removing an image moves at most
    one other of its class. Equal images are in the same part.
    """
    digests = digests_of(samples, known)
    classes: dict[int, set[bytes]] = {}
    for digest, (_, label) in zip(digests, samples, strict=True):
        classes.setdefault(label, set()).add(digest)
    chosen: set[bytes] = set()
    for images in classes.values():
        chosen.update(sorted(images)[: max(1, round(share * len(images)))])
    parts: tuple[list[Sample], list[Sample]] = [], []
    for digest, sample in zip(digests, samples, strict=True):
        parts[digest in chosen].append(sample)
    return parts


def unseen(
    samples: Sequence[Sample], known: Digests, trained_on: Collection[bytes]
) -> Sequence[Sample]:
    """Returns the samples that a network was not trained on."""
    digests = digests_of(samples, known)
    pairs = zip(digests, samples, strict=True)
    return [sample for digest, sample in pairs if digest not in trained_on]


def image_list(data: ImageData, digests: Mapping[str, Sequence[bytes]]) -> bytes:
    """Returns a CSV file with a line per image: its part, label, digest and file.

    Args:
        data: the data set.
        digests: digests of the samples of each part, in their order.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for part, samples in data.parts.items():
        for digest, (source, label) in zip(digests[part], samples, strict=True):
            file = source if isinstance(source, Path) else ""
            writer.writerow((part, data.name_of(label), digest.hex(), file))
    return text.getvalue().encode(errors="surrogateescape")


def changes(before: bytes, now: bytes, *, count: int | None = None) -> list[str]:
    """Returns a text for each part in which two image lists differ; file names may differ.

    Args:
        before: the stored list.
        now: the list of the current images.
        count: number of images in the stored list; None if unknown.

    Raises:
        ValueError: a list is damaged.
    """
    old, new = _images(before, count), _images(now)
    said = []
    for part in dict.fromkeys((*old, *new)):
        were, are = old.get(part, Counter()), new.get(part, Counter())
        counts = {"added": (are - were).total(), "removed": (were - are).total()}
        words = [f"{count:,} {what}" for what, count in counts.items() if count]
        if words:
            said.append(f"images of {part}: {' and '.join(words)}")
    return said


def learned_from(run: Path) -> frozenset[bytes]:
    """Returns the digests of the training images of the run in a folder.

    Raises:
        OSError: its list of images or its plan cannot be read.
        ValueError: one of them is damaged.
    """
    plan = json.loads((run / RUN_PLAN).read_bytes())
    if not isinstance(plan, dict):
        raise ValueError(f"{RUN_PLAN} is not an object")
    images = _images((run / IMAGE_LIST).read_bytes(), plan.get("images"))
    return frozenset(bytes.fromhex(digest) for _, digest in images.get("train", ()))


def _images(content: bytes, count: int | None = None) -> dict[str, Counter[tuple[str, str]]]:
    parts: dict[str, Counter[tuple[str, str]]] = {}
    text = content.decode(errors="surrogateescape")
    if not text.endswith("\n"):
        raise ValueError("it is cut off")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        if (header := tuple(next(reader))) != _COLUMNS:
            raise ValueError(f"its columns are {', '.join(header)}, not {', '.join(_COLUMNS)}")
        for row in reader:
            if len(row) != len(_COLUMNS):
                raise ValueError(f"line {reader.line_num} has {len(row)} columns")
            part, label, digest, _ = row
            parts.setdefault(part, Counter())[label, digest] += 1
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error
    listed = sum(images.total() for images in parts.values())
    if count not in (None, listed):
        raise ValueError(f"it lists {listed:,} images, and {count:,} were written")
    return parts
