from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import UserError
from export.class_names import class_names, distinct

GOOD = {
    "a.txt": "cat\n dog \nhot dog\n\n",
    "crlf.txt": "cat\r\ndog\r\nhot dog\r\n",
    "bom.names": "\ufeffcat\ndog\nhot dog",
    "list.json": '["cat", "dog", "hot dog"]',
    "index.json": '{"2": "hot dog", "0": "cat", "1": "dog"}',
    "class_to_idx.json": '{"hot dog": 2, "cat": 0, "dog": 1}',
    "keras.json": '{"0": ["n01", "cat"], "1": ["n02", "dog"], "2": ["n03", "hot dog"]}',
    "one.csv": 'name\ncat\ndog\n"hot dog"\n',
    "bare.csv": "cat\ndog\nhot dog\n",
    "two.csv": "index,label\n1,dog\n0,cat\n2,hot dog\n",
    "headless.csv": "0,cat\n1,dog\n2,hot dog\n",
}
BAD = {
    "hole.txt": ("cat\n\ndog", "class 1"),
    "empty.txt": ("", "no name in it"),
    "empty.json": ("[]", "no name in it"),
    "empty.csv": ("", "no name in it"),
    "head.csv": ("index,label\n", "no name in it"),
    "long.txt": ("x" * 1025, "class 0"),
    "gap.json": ('{"0": "cat", "2": "dog"}', "indices are not 0 to 1"),
    "words.json": ('{"cat": "dog"}', "'cat'"),
    "number.json": ("[1, 2]", "1 is no name"),
    "text.json": ('"cat"', "neither a list nor an object"),
    "cut.json": ('["cat", ', "line 1"),
    "deep.json": ("[" * 100_000, "recursion"),
    "twice.csv": ("0,cat\n0,dog\n", "each once"),
    "three.csv": ("0,cat,x\n", "3"),
    "words.csv": ("name,kind\ncat,a\n", "'cat' is no index"),
    "images.csv": ("file,labels\n0.png,cat\n1.png,dog\n", r"such as 0\.png, .*--image-labels"),
    "flags.csv": ("n,file,cat,dog\n1,0.JPG,1,0\n", r"such as 0\.JPG, .* run of train"),
    "ragged.csv": ("0,cat\ndog\n", "1, 2"),
}


@pytest.mark.parametrize("name", GOOD)
def test_names_come_in_the_order_of_the_logits(name: str, here: Path) -> None:
    Path(name).write_bytes(GOOD[name].encode())
    assert class_names(name) == ("cat", "dog", "hot dog")


@pytest.mark.parametrize("name", BAD)
def test_what_leaves_a_class_open_is_one_line(name: str, here: Path) -> None:
    text, reason = BAD[name]
    Path(name).write_text(text)
    with pytest.raises(UserError, match=reason) as error:
        class_names(name)
    assert "\n" not in str(error.value)


def test_imagenet_is_known_by_name() -> None:
    names = class_names("imagenet")
    assert (len(names), names[0], names[999]) == (1000, "tench", "toilet tissue")


def test_equal_labels_are_told_apart() -> None:
    assert distinct(["crane", "dog", "crane"]) == ["crane (0)", "dog", "crane (2)"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_is_no_text(content: bytes | None, here: Path) -> None:
    if content is not None:
        Path("labels.txt").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        class_names("labels.txt")
