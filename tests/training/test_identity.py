"""The split and a run follow the image, not its name or its place."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data import ImageData
from training.datasets import load_data
from training.identity import (
    changes,
    digest_of,
    digests_of,
    hold_out,
    image_list,
    learned_from,
    unseen,
)

MakeImages = Callable[..., list[Path]]


def digests(data: ImageData, part: str) -> set[bytes]:
    return set(digests_of(data.parts[part], data.digests))


def listed(data: ImageData) -> bytes:
    parts = {part: digests_of(samples, data.digests) for part, samples in data.parts.items()}
    return image_list(data, parts)


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 4), "red")
    for name in ("a.png", "b.jpg"):
        image.save(tmp_path / name, "PNG")
    assert digest_of(tmp_path / "a.png") == digest_of(tmp_path / "b.jpg")
    assert digest_of(image) == digest_of(image.copy())
    assert digest_of(image) != digest_of(Image.new("RGB", (4, 4), "blue"))
    assert digest_of(Image.new("L", (2, 8))) != digest_of(Image.new("L", (8, 2)))
    assert len(digest_of(image)) == 16


def test_a_renamed_or_moved_image_stays_on_its_side(folder: Path) -> None:
    before = load_data(str(folder))
    names = list(range(10))
    random.Random(0).shuffle(names)
    (folder / "cat" / "deep").mkdir()
    for index, name in enumerate(names):
        (folder / "cat" / f"{index}.png").rename(folder / "cat" / "deep" / f"new{name}.png")
    after = load_data(str(folder))
    for part in ("train", "val"):
        assert digests(after, part) == digests(before, part)


@pytest.mark.parametrize("change", ["added", "removed"])
def test_one_image_more_or_less_moves_at_most_one_other(
    tmp_path: Path, make_images: MakeImages, change: str
) -> None:
    folder = tmp_path / "pets"
    make_images(folder / "dog", 10)
    for number in (5, 8, 20, 53):
        files = make_images(folder / "cat", number)
        before = load_data(str(folder))
        for step in range(10):
            if change == "added":
                make_images(folder / "cat" / f"{step}", 1)
            elif len(files) > 2:
                files.pop().unlink()
            after = load_data(str(folder))
            stay = digests(before, "val") & (digests(after, "val") | digests(after, "train"))
            assert len(stay - digests(after, "val")) <= 1
            entered = digests(after, "val") & digests(before, "train")
            assert len(entered) <= 1
            before = after
        shutil.rmtree(folder / "cat")


def test_a_fifth_of_each_class_is_held_out() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (600, 3, 3), np.uint8)
    samples = [(Image.fromarray(grey), index % 3) for index, grey in enumerate(pixels)]
    train, val = hold_out(samples, {})
    assert np.bincount([label for _, label in train]).tolist() == [160, 160, 160]
    assert np.bincount([label for _, label in val]).tolist() == [40, 40, 40]


def test_unseen_are_those_not_trained_on(folder: Path) -> None:
    data = load_data(str(folder))
    trained_on = frozenset(digests_of(data.train, data.digests))
    assert unseen(data.val, data.digests, trained_on) == list(data.val)
    assert unseen(data.train, {}, trained_on) == []


def test_changes_are_told_by_content(folder: Path, make_images: MakeImages) -> None:
    before = listed(load_data(str(folder)))
    assert before.splitlines()[0] == b"part,label,digest,file"
    assert len(before.splitlines()) == 21
    (folder / "cat" / "1.png").rename(folder / "cat" / "renamed.png")
    assert changes(before, listed(load_data(str(folder)))) == []
    make_images(folder / "cat" / "more", 20)
    (folder / "dog" / "0.png").unlink()
    train, val = changes(before, listed(load_data(str(folder))))
    assert re.search(r"\btrain: ", train)
    assert re.search(r"\bval: ", val)
    added, removed = (
        sum(map(int, re.findall(rf"(\d+) {what}", train + val))) for what in ("added", "removed")
    )
    assert (added - removed, removed > 0) == (20 - 1, True)


def test_an_image_that_moves_to_another_class_is_another(folder: Path) -> None:
    data = load_data(str(folder))
    source, label = data.train[0]
    moved = [(source, 1 - label), *data.train[1:]]
    other = ImageData(
        name="pets", labels=data.labels, train=moved, val=data.val, digests=data.digests
    )
    (line,) = changes(listed(data), listed(other))
    assert re.search(r"\btrain: 1 .*1 ", line)


def test_arrays_have_an_identity_as_well() -> None:
    data = load_data("digits")
    content = listed(data)
    assert len(content.splitlines()) == 1798
    assert changes(content, content) == []


def test_an_image_list_that_is_cut_is_told(folder: Path) -> None:
    content = listed(load_data(str(folder)))
    assert changes(content, content, count=20) == []
    with pytest.raises(ValueError, match="cut off"):
        changes(content[:-1], content)
    for cut in (content[: content.rindex(b"\n", 0, -1) + 1], content.splitlines(keepends=True)[0]):
        with pytest.raises(ValueError, match=r"\b(19|0) images\b.*\b20\b"):
            changes(cut, content, count=20)


def test_a_run_says_what_it_learned_from(folder: Path, tmp_path: Path) -> None:
    data = load_data(str(folder))
    content = listed(data)
    images, plan = tmp_path / "images.csv", tmp_path / "run.json"
    images.write_bytes(content)
    plan.write_text('{"images": 20}')
    assert learned_from(tmp_path) == digests(data, "train")
    for damaged in (
        content[: content.rindex(b"\n", 0, -1) + 1],
        content.replace(b",cat,", b",cat,x"),
    ):
        images.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"hexadecimal|\b19 images"):
            learned_from(tmp_path)
    images.write_bytes(content)
    plan.write_text("{}")  # of earlier versions
    assert learned_from(tmp_path) == digests(data, "train")
    plan.write_text("[]")
    with pytest.raises(ValueError, match="object"):
        learned_from(tmp_path)
