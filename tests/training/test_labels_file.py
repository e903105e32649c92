"""A folder of images beside a CSV file of labels."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import UserError
from training.data import ImageData
from training.datasets import load_data
from training.options import FolderOptions

MakeImages = Callable[..., list[Path]]
Command = Callable[..., subprocess.CompletedProcess[str]]

TINY = shlex.split(
    "--model resnet14 --recipe-name scratch --recipe.epochs 1 --recipe.crop 8 --recipe.resize 8 "
    "--recipe.batch-size 4 --recipe.workers 0"
)


@pytest.fixture
def photos(tmp_path: Path, make_images: MakeImages) -> Path:
    """Returns a folder of twenty images without class folders."""
    make_images(tmp_path / "photos" / "images", 20)
    return tmp_path / "photos"


def label(index: int) -> str:
    return "dog" if index % 2 else "cat"


def write(folder: Path, head: str, row: str, name: str = "labels.csv", end: str = "") -> Path:
    rows = [row.format(index=index, label=label(index)) for index in range(20)]
    (folder / name).write_text("\n".join([head, *rows]) + end)
    return folder / name


def load(folder: Path, file: Path | str, *columns: str, **options: bool) -> ImageData:
    flags = FolderOptions(labels=str(file), labels_columns=columns, **options)
    return load_data(str(folder), flags)


def check(data: ImageData) -> None:
    assert data.labels == ("cat", "dog")
    assert (len(data.train), len(data.val)) == (16, 4)
    for source, index in (*data.train, *data.val):
        assert data.labels[index] == label(int(Path(str(source)).stem))


@pytest.mark.parametrize(
    ("head", "row", "columns"),
    [
        ("file,label", "images/{index}.png,{label}", ()),
        ("label,x,file", "{label},0,{index}.png", ()),
        ("id,breed", "{index},{label}", ()),
        ("path,breed", "images\\{index}.png,{label}", ()),
        ("path,breed", "images/{index},{label}", ()),
        ("", "images/{index},{label}", ()),
        ("id,note,label", '{index},"two\nlines",{label}', ("id", "label")),
        ("id;breed", "{index};{label}", ()),
        ("id\tbreed", "{index}\t{label}", ()),
        ('"id","breed"', '"{index}.png","{label}"', ()),
        ("\ufeffid,breed", "{index}.png, {label} ", ("id", "breed")),
        ("n,id,breed", "0,{index},{label}", ("id", "breed")),
        ("breed,n,id", "{label},0,{index}", ("3", "1")),
        ("id,breed\r", "{index}.png,{label}\r", ()),
    ],
)
def test_labels_come_from_a_csv_file(
    photos: Path, head: str, row: str, columns: tuple[str, ...]
) -> None:
    data = load(photos, write(photos, head, row), *columns)
    check(data)
    assert data.scan.lines() == []


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ("images/{index}.png,{label}", ()),
        ("{label},{index}.png", ()),
        ("{index};{label}", ()),
        ("0,{index}.png,{label}", ("2", "3")),
    ],
)
def test_without_names_of_columns_the_first_line_counts(
    photos: Path, row: str, columns: tuple[str, ...]
) -> None:
    data = load(photos, write(photos, "", row), *columns)
    check(data)
    assert data.scan.lines() == []


@pytest.mark.parametrize("head", ["label,file", "class,image", "Category,Filename", "breed,id"])
def test_the_columns_may_stand_in_either_order(photos: Path, head: str) -> None:
    check(load(photos, write(photos, head, "{label},{index}.png")))


def test_labels_may_be_called_like_images(photos: Path, make_images: MakeImages) -> None:
    make_images(photos / "more", 1)[0].rename(photos / "more" / "cat.png")
    check(load(photos, write(photos, "image,class", "images/{index}.png,{label}")))


def test_the_file_may_stand_beside_the_folder_or_in_it(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(load(photos / "images", write(photos, "a,b", "images/{index}.png,{label}")))
    check(load(photos, "labels.csv"))
    monkeypatch.chdir(photos.parent)
    check(load(Path("photos/images"), photos / "labels.csv"))
    check(load(photos / "images", "photos/labels.csv"))


def test_a_path_without_suffix_is_of_one_file(photos: Path, make_images: MakeImages) -> None:
    make_images(photos / "more", 20)  # so that no name is unique
    check(load(photos, write(photos, "file,label", "images/{index},{label}")))
    make_images(photos / "images", 1, suffix=".jpg")
    with pytest.raises(UserError, match=r"line 2: images/0 may be .*images/0\.jpg, .*0\.png; give"):
        load(photos, "labels.csv")


def test_a_class_of_which_no_path_is_right_says_what_paths_are_relative_to(photos: Path) -> None:
    file = write(photos, "file,label", "photos/{index},{label}")
    with pytest.raises(UserError, match=rf"not there .*/photos/0\); .* relative to {photos} or"):
        load(photos, file)


def test_a_folder_is_no_file_of_labels(photos: Path) -> None:
    with pytest.raises(UserError, match=r"^--labels images: it is a folder; name the CSV file"):
        load(photos, "images")


def test_images_without_a_line_are_counted(photos: Path, make_images: MakeImages) -> None:
    make_images(photos / "test", 3, suffix=".jpg")
    data = load(
        photos, write(photos, "file,label", "images/{index}.png,{label}", end="\n,\n,cat\n")
    )
    check(data)
    without_label, not_named = data.scan.unused.values()
    assert list(map(str, without_label)) == [f"{photos}/labels.csv, line 23"]
    assert not_named == [photos / "test" / f"{index}.jpg" for index in range(3)]


def test_lines_without_a_label_are_counted_once(photos: Path) -> None:
    rows = [f"images/{at}.png,{label(at) if at < 16 else ''}" for at in range(20)]
    (photos / "labels.csv").write_text("\n".join(["file,label", *rows, ",cat", rows[0]]))
    unused = load(photos, "labels.csv").scan.unused
    assert {reason: len(files) for reason, files in unused.items()} == {
        "without a label": 4,
        "in a line without file": 1,
    }


def test_lines_without_an_image_are_a_loss(photos: Path) -> None:
    file = write(photos, "file,label", "images/{index}.png,{label}", end="\nlost1.png,dog")
    check(load(photos, file))
    file.write_text(file.read_text() + "\nlost2.png,dog")
    with pytest.raises(UserError, match=r"class dog: 2 of its 12 .*lost1\.png"):
        load(photos, file)
    data = load(photos, file, skip_unreadable=True)
    check(data)
    (missing,) = data.scan.unused.values()
    assert [path.name for path in missing] == ["lost1.png", "lost2.png"]


@pytest.mark.parametrize(
    ("line", "row", "columns"),
    [
        ("images/lost.png,dog", "images/{index}.png,{label}", ()),
        ("images/lost.png,bird", "images/{index}.png,{label}", ("1", "2")),
        ("lost,dog", "{index},{label}", ()),
        ("lost,1,bird", "{index},{index},{label}", ("1", "3")),
    ],
)
def test_a_first_line_whose_image_is_missing_is_a_loss(
    photos: Path, line: str, row: str, columns: tuple[str, ...]
) -> None:
    file = write(photos, line, row)
    label = line.rpartition(",")[2]
    if label == "bird":
        with pytest.raises(UserError, match=r"class bird: 1 of its 1 .*\blost"):
            load(photos, file, *columns)
    else:
        data = load(photos, file, *columns)
        check(data)
        ((missing,),) = data.scan.unused.values()
        assert missing.name == Path(line.partition(",")[0]).name


@pytest.mark.parametrize(
    ("content", "columns", "reason"),
    [
        ("a,b,c\n1,2,3", (), r"\(a, b, c\) .*-columns a c .*-columns 1 3 "),
        ("lost,bird\n0,cat\n1,dog\n2,dog", (), r"labels\.csv: .*\(lost, bird\)"),
        ("a,b,c\n0.png,2,3\n1.png,2,3", (), r" a, b, c; .*--labels-columns a c"),
        ("a,b\n1,2", ("a", "x"), r"--labels-columns x: .* a, b"),
        ("a,b\n1,2", ("0", "1"), r"--labels-columns 0: "),
        ("a,b\n1,2", ("a",), r"--labels-columns a: "),
        ("file,label\n0.png,cat\n0.png,dog", (), r"line 3: 0.png .*\bdog\b.*\bcat\b"),
        ("file,label\n0.png,cat\n1.png,cat", (), r"labels\.csv: .*\(cat\)"),
        ("file,label\n0.png,cat\n1.png", (), r"line 3: 1 columns"),
        ("file,label\n", (), r"labels\.csv: "),
        ("", (), r"labels\.csv: "),
        ("file,label\n0.png,cat\n1\0.png,dog", (), r"line 3: '1\\x00.png' .*'dog'"),
        ("file,label\n0.png,cat\n1.png,d\0g", (), r"line 3: '1.png' .*'d\\x00g'"),
        ("a,b\nx.png,cat\ny.png,dog", (), r" a, b; .*--labels-columns a b"),
        ("a,b\n0.png,1\n1.png,2", (), r" a, b; .*--labels-columns a b"),
        ("n,pic a,kind\n1,0.png,cat\n2,1.png,dog\n3,2.png,cat", (), r"-columns 'pic a' kind;"),
        ("n,kind,a,class\n1,cat,0.png,x\n2,dog,1.png,x", (), r"-columns a class;"),
        ("3,cat,0.png\n4,cat,1.png\n5,dog,2.png", (), r"-columns 3 2;"),
        ("0.png,x,cat\n1.png,x,dog", (), r" 0.png, x, cat; .*--labels-columns 1 3"),
        ("0.png,x,cat\n1.png,x,dog", ("id", "3"), r"--labels-columns id: .*\b3\b"),
        ('file,label\n"0.png,cat', (), r"labels\.csv: .*CSV .*UTF-8"),
        (b"file,label\n0.png,\xff", (), r"labels\.csv: .*CSV .*UTF-8"),
        (None, (), r"--labels .*labels\.csv: No such file, neither here nor in "),
    ],
)
def test_a_labels_file_that_cannot_be_used(
    photos: Path, content: str | bytes | None, columns: tuple[str, ...], reason: str
) -> None:
    file = photos / "labels.csv"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=reason) as caught:
        load(photos, file, *columns)
    assert "\n" not in str(caught.value)


def test_a_name_that_could_be_several_files(photos: Path, make_images: MakeImages) -> None:
    make_images(photos / "more", 1)
    file = write(photos, "id,label", "{index}.png,{label}")
    with pytest.raises(UserError, match=r"line 2: 0.png .*images/0.png, .*more/0.png"):
        load(photos, file)


def test_class_folders_and_a_labels_file_do_not_go_together(photos: Path) -> None:
    flags = FolderOptions(labels="labels.csv", split_folders=("train=a",))
    with pytest.raises(UserError, match=r"--split-folders.*--labels"):
        load_data(str(photos), flags)


def test_columns_without_their_file_are_refused(photos: Path) -> None:
    with pytest.raises(UserError, match=r"^--labels-columns a b: .*--labels FILE$"):
        load_data(str(photos), FolderOptions(labels_columns=("a", "b")))


def test_the_command_line_takes_it(photos: Path, here: Path, command: Command) -> None:
    write(photos, "n,id,breed", "0,{index},{label}", "train.csv")
    shutil.move(photos / "train.csv", here / "train.csv")
    flags = ("--labels", "train.csv", "--labels-columns", "id", "breed")
    ran = command("training", *TINY, "--data", str(photos), *flags)
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"\b16 images .*\b4 .*\b2 classes", ran.stderr)
