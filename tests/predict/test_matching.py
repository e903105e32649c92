from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from core.errors import UserError
from predict.matching import match_classes, read_names


def test_names_decide_whatever_their_order() -> None:
    matching = match_classes(("dog", "cat", "horse"), ("cat", "dog", "eel"))
    assert matching.indices == (1, 0, None)
    assert matching.unknown.keys() == {"horse"}
    assert matching.lacking == ("eel",)


def test_one_name_in_two_forms_of_unicode() -> None:
    name = "café"
    other = unicodedata.normalize("NFD", name)
    assert match_classes((other, "tea"), ("tea", name)).indices == (1, 0)


def test_labels_that_stand_twice() -> None:
    labels = ("crane", "dog", "crane")
    assert match_classes(labels, labels).indices == (0, 1, 2)
    matching = match_classes(("crane", "dog"), labels)
    assert matching.indices == (None, 1)
    assert matching.unknown.keys() == {"crane"}
    assert matching.unknown["crane"].startswith("2 ")


def test_no_match_is_one_line_that_says_how_to_mend_it() -> None:
    with pytest.raises(UserError, match=r"\bkitten, puppy\b.*kitten,cat$"):
        match_classes(("kitten", "puppy"), ("cat", "dog"))


def test_a_file_of_names(tmp_path: Path) -> None:
    file = tmp_path / "names.csv"
    file.write_text('kitten,cat\n\n"tom, the",cat\npuppy , dog\n')
    names = read_names(file)
    assert names == {"kitten": "cat", "tom, the": "cat", "puppy": "dog"}
    classes = ("kitten", "puppy", "tom, the")
    assert match_classes(classes, ("cat", "dog"), names).indices == (0, 1, 0)
    assert match_classes((*classes, "eel"), ("cat", "dog"), names).unknown.keys() == {"eel"}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"kiten": "cat"}, r"'kiten' .*\bkitten\?"),
        ({"kitten": "cta"}, r"'cta' .*\bcat\?"),
    ],
)
def test_names_that_nothing_is_called(names: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=f"--map: .*{words}"):
        match_classes(("kitten", "dog"), ("cat", "dog"), names)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"kitten\n", r"line 1: 1 "),
        (b"kitten,cat\nkitten,dog\n", r"line 2: kitten .*\bdog\b.*\bcat\b"),
        (b"\xff,cat\n", r"names\.csv: .*UTF-8"),
        (None, r"names\.csv: .*No such file"),
    ],
)
def test_a_bad_file_of_names(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "names.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=words) as raised:
        read_names(file)
    assert "\n" not in str(raised.value)
