from __future__ import annotations

import io
import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.errors import UserError
from predict.classifier import Classifier
from predict.pipeline import Item, classify, file_item
from predict.sources import Passed, count_items, find_items, find_sources

Put = Callable[..., Path]
MOST = 10_000


def found(*names: str) -> list[str]:
    """Returns the paths of all items; each of them can be read."""
    return [item.path for item in items(*names) if item.load()]


def items(*names: str, passed: Passed | None = None, ours: tuple[Path, ...] = ()) -> list[Item]:
    sources = find_sources(names, MOST, ours)
    every = list(find_items(sources, Passed() if passed is None else passed))
    assert count_items(sources) in (len(every), None)
    return every


def test_a_folder_is_gone_through_in_order(put: Put) -> None:
    for name in ("b.png", "a/z.png", "a/y.JPG", "c/d/e.webp", "a.png"):
        put(f"photos/{name}")
    for name in (".hidden.png", "Thumbs.db", "a/labels.csv", "__MACOSX/x.png", "notes.txt"):
        put(f"photos/{name}", b"text")
    put("photos/named.txt")  # an image all the same
    os.mkfifo("photos/pipe.png")
    passed = Passed()
    assert [item.path for item in items("photos", passed=passed)] == [
        *("photos/a.png", "photos/b.png", "photos/named.txt"),
        *("photos/a/y.JPG", "photos/a/z.png", "photos/c/d/e.webp"),
    ]
    assert passed == {
        "hidden or left by machines": 3,
        "not meant as an image": 2,
        "no regular file": 1,
    }


def test_links_are_followed_once(put: Put) -> None:
    put("photos/a.png")
    Path("photos/loop").symlink_to(Path("photos").absolute())
    Path("photos/gone.png").symlink_to("nowhere.png")
    first, gone = items("photos")
    assert first.path == "photos/a.png"
    with pytest.raises(UserError, match="No such file"):
        gone.load()


def test_what_is_written_meanwhile_is_no_source(put: Put) -> None:
    for name in ("a.png", "page.html", "sorted/red/a.png"):
        put(f"photos/{name}")
    ours = (Path("photos/page.html"), Path("photos/sorted"))
    assert [item.path for item in items("photos", ours=ours)] == ["photos/a.png"]
    with pytest.raises(UserError, match=r"photos/page\.html"):
        items("photos/*", ours=ours)


def test_files_and_patterns(put: Put) -> None:
    for name in ("b/2.png", "b/10.png", "a/1.png", "a/c/3.png"):
        put(name)
    put("odd[1].png")
    assert found("b/2.png", "a") == ["b/2.png", "a/1.png", "a/c/3.png"]
    assert found("b/*.png") == ["b/10.png", "b/2.png"]
    assert found("**/*.png") == ["a/1.png", "a/c/3.png", "b/10.png", "b/2.png", "odd[1].png"]
    assert found("odd[1].png") == ["odd[1].png"]


@pytest.mark.parametrize("name", ["nowhere", "nowhere.png", "nowhere/*.png"])
def test_what_is_not_there_is_refused(here: Path, name: str) -> None:
    with pytest.raises(UserError, match=name.replace("*", r"\*")):
        find_sources([name], MOST)


def test_a_list_of_paths(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("data/a.png", "data/b c.png", "here.png", "data/\xe9.png"):
        put(name)
    put("data/list.txt", "\ufeffa.png\r\n\nhere.png\nb c.png\n\xe9.png".encode())
    names = ["a.png", "here.png", "b c.png", "\xe9.png"]
    assert found("data/list.txt") == names
    put("data/table.csv", "\ufeffid;Image;label\n1;a.png;x\n2;;y\n3;b c.png\n".encode())
    first, empty, last = items("data/table.csv")
    assert [item.path for item in (first, last) if item.load()] == ["a.png", "b c.png"]
    assert empty.path == "data/table.csv, line 3"
    with pytest.raises(UserError, match="no path"):
        empty.load()
    put("data/short.csv", b"label,path\nx\n\ny,a.png\n")  # a row without that column, and none
    assert [item.path for item in items("data/short.csv")] == ["data/short.csv, line 2", "a.png"]
    put("data/own.tsv", b'path\tlabel\n"a.png"\tred\n')
    assert found("data/own.tsv") == ["a.png"]
    standard = io.TextIOWrapper(io.BytesIO(b"data/a.png\nhere.png\n"))
    monkeypatch.setattr(sys, "stdin", standard)
    assert found("-") == ["data/a.png", "here.png"]
    photo = put("here.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(photo)))
    with pytest.raises(UserError, match="an image itself"):
        found("-")


def test_the_line_of_a_list_says_what_the_row_is_called(put: Put) -> None:
    file = put("data/a.png")
    put("data/list.txt", f"{file}\nmissing.png\n../x/y.png\n".encode())
    given, missing, up = items("data/list.txt")
    assert (given.path, missing.path, up.path) == (str(file), "missing.png", "../x/y.png")
    with pytest.raises(UserError, match="No such file"):
        missing.load()


@pytest.mark.parametrize("name", [b"x" * 300 + b".png", b"nul\0.png"])
def test_a_name_that_no_file_can_have_is_a_row(put: Put, name: bytes) -> None:
    put("data/list.txt", b"a.png\n" + name + b"\nb.png\n")
    _, impossible, last = items("data/list.txt")
    assert (impossible.path, last.path) == (name.decode(), "b.png")
    with pytest.raises(UserError, match="cannot be read"):
        impossible.load()


def test_a_name_that_is_not_utf_8(here: Path, png: Callable[[str], bytes]) -> None:
    name = os.fsencode(here / "photos") + b"/\xff.png"
    (here / "photos").mkdir()
    with open(name, "wb") as file:
        file.write(png("red"))
    assert found("photos") == ["photos/\\xff.png"]
    (here / "list.txt").write_bytes(b"photos/\xff.png\n")
    assert found("list.txt") == ["photos/\\xff.png"]
    (here / "list.csv").write_bytes(b"image\nphotos/\xff.png\n")
    assert found("list.csv") == ["photos/\\xff.png"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"label,name\nx,y\n", "label, name"),
        (b"", "none"),
        (b'path\n"a', "CSV"),
        (b"path\n" + b"a" * 200_000, "CSV"),
    ],
)
def test_a_table_without_paths_is_refused(put: Put, content: bytes, words: str) -> None:
    put("list.csv", content)
    with pytest.raises(UserError, match=words):
        items("list.csv")


def test_a_list_without_line_ends_is_refused(put: Put) -> None:
    put("list.txt", b"a" * (1 << 21))
    with pytest.raises(UserError, match="one path a line"):
        items("list.txt")


def test_a_folder_that_may_not_be_listed_is_a_row(
    put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("photos/a/1.png")
    put("photos/b/2.png")
    listed = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("a"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    good, refused = sorted(items("photos"), key=lambda item: item.path, reverse=True)
    assert (refused.path, good.path) == ("photos/a", "photos/b/2.png")
    with pytest.raises(UserError, match="Permission denied"):
        refused.load()


def test_many_paths_take_no_more_memory_than_few(artifact_path: Path, here: Path) -> None:
    count = 10_000
    with open("list.txt", "w") as file:
        file.writelines(f"folder/with/a/long/name/{number:09}.png\n" for number in range(count))

    def all_of_them() -> Iterator[int]:
        with Classifier.open(artifact_path, threads=2, batch_size=2) as classifier:
            paths = find_items(find_sources(["list.txt"], MOST), Passed())
            for outcome in classify(classifier, paths):
                yield outcome.row.prediction is None

    sources = find_sources(["list.txt"], MOST)
    assert count_items(sources) == count
    rows = all_of_them()
    assert next(rows)
    tracemalloc.start()
    try:
        failed = sum(rows)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert failed == count - 1
    assert peak < 500_000  # the paths alone take twice that


def test_an_item_is_not_read_before_its_turn(put: Put) -> None:
    file = put("a.png")
    item = file_item(file, MOST)
    file.unlink()
    with pytest.raises(UserError, match="No such file"):
        item.load()
