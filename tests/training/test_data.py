from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from core.errors import UserError
from core.preprocess import decode
from training.data import ImageData, Sample, open_image, pixel_batches, sample_photos
from training.datasets import load_data
from training.loader import Loaders
from training.recipe import Recipe

MakeImages = Callable[..., list[Path]]
SMALL = Recipe(epochs=1, batch_size=4, learning_rate=1e-3, resize=32, crop=32)


def _files(samples: Sequence[Sample]) -> list[Path]:
    return [source for source, _ in samples if isinstance(source, Path)]


def _names(data: ImageData) -> list[str]:
    return [file.name for file in _files([*data.train, *data.val])]


def test_no_image_is_both_learned_from_and_held_out(folder: Path) -> None:
    data = load_data(str(folder))
    assert data.name == "pets"
    assert data.labels == ("cat", "dog")
    train, val = ({str(source) for source, _ in part} for part in (data.train, data.val))
    assert (len(train), len(val)) == (16, 4)
    assert not train & val


def test_a_split_folder_is_taken_as_it_is(folder: Path) -> None:
    for part in ("train", "val"):
        (folder / part).mkdir()
    for label in ("cat", "dog"):
        (folder / "val" / label).mkdir()
        for index in range(3):
            (folder / label / f"{index}.png").rename(folder / "val" / label / f"{index}.png")
        (folder / label).rename(folder / "train" / label)
    data = load_data(str(folder))
    assert (len(data.train), len(data.val)) == (14, 6)


def test_one_held_out_image_of_a_class_is_enough_where_the_split_is_given(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "split" / "train")
    for label in ("cat", "dog"):
        (folder.parent / "split" / "val" / label).mkdir(parents=True)
        (folder / label / "0.png").rename(folder.parent / "split" / "val" / label / "0.png")
    assert len(load_data(str(folder.parent / "split")).val) == 2


def test_every_class_is_learned_from_and_held_out_however_rare(
    folder: Path, make_images: MakeImages
) -> None:
    for label, count in (("ant", 2), ("bee", 3), ("eel", 100)):
        make_images(folder / label, count)
    data = load_data(str(folder))
    assert data.labels == ("ant", "bee", "cat", "dog", "eel")
    counts = [np.bincount([label for _, label in part]).tolist() for part in (data.train, data.val)]
    assert counts == [[1, 2, 8, 8, 80], [1, 1, 2, 2, 20]]


def test_a_folder_is_split_the_same_way_every_time(folder: Path) -> None:
    first, second = load_data(str(folder)), load_data(str(folder))
    assert list(first.train) == list(second.train)
    assert list(first.val) == list(second.val)
    assert [file.name for file in _files(first.val)[:2]] != ["0.png", "1.png"]  # not just the first


def test_a_class_may_be_called_train(folder: Path) -> None:
    (folder / "cat").rename(folder / "train")
    assert load_data(str(folder)).labels == ("dog", "train")


def test_images_are_found_at_any_depth(folder: Path, make_images: MakeImages) -> None:
    (deep,) = make_images(folder / "dog" / "2026" / "may", 1)
    data = load_data(str(folder))
    assert deep in _files([*data.train, *data.val])


@pytest.mark.parametrize(
    "junk",
    [
        "dog/._0.png",
        "dog/.hidden/1.png",
        "dog/__MACOSX/1.png",
        "dog/@eaDir/1.png",
        ".cache/1.png",
        "__MACOSX/dog/1.png",
    ],
)
def test_what_machines_leave_behind_is_no_image_and_no_class(folder: Path, junk: str) -> None:
    before = load_data(str(folder))
    (folder / junk).parent.mkdir(parents=True, exist_ok=True)
    (folder / junk).touch()
    after = load_data(str(folder))
    assert after.labels == before.labels
    assert list(after.train) == list(before.train)
    assert list(after.val) == list(before.val)


def test_links_to_classes_folders_and_images_are_followed(
    folder: Path, make_images: MakeImages
) -> None:
    others = make_images(folder.parent / "others", 3)
    make_images(folder.parent / "more", 8)
    (folder.parent / "linked").mkdir()
    for label in ("cat", "dog"):
        (folder.parent / "linked" / label).symlink_to(folder / label)
    (folder.parent / "linked" / "eel").mkdir()
    for file in others:
        (folder.parent / "linked" / "eel" / f"image{file.name}").symlink_to(file)
    (folder.parent / "linked" / "eel" / "more").symlink_to(folder.parent / "more")
    data = load_data(str(folder.parent / "linked"))
    assert data.labels == ("cat", "dog", "eel")
    counts = np.bincount([label for _, label in (*data.train, *data.val)])
    assert counts.tolist() == [10, 10, 11]


def test_a_link_into_a_loop_is_followed_once(folder: Path) -> None:
    (folder / "dog" / "again").symlink_to(folder / "dog")
    assert len(_names(load_data(str(folder)))) == 20


def _one_class(folder: Path) -> None:
    shutil.rmtree(folder / "dog")


def _no_classes(folder: Path) -> None:
    for label in ("cat", "dog"):
        for file in (folder / label).iterdir():
            file.rename(folder / f"{label}{file.name}")
        (folder / label).rmdir()


def _no_images(folder: Path) -> None:
    for file in (folder / "dog").iterdir():
        file.unlink()
        file.with_suffix(".txt").write_text("a note")


def _copies(folder: Path) -> None:
    for index in range(1, 10):
        shutil.copy(folder / "dog" / "0.png", folder / "dog" / f"{index}.png")


def _one_image(folder: Path) -> None:
    for index in range(9):
        (folder / "dog" / f"{index}.png").unlink()


def _broken_link(folder: Path) -> None:
    (folder / "eel").symlink_to("/nowhere/eel")


def _only_train(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "copy")
    (folder.parent / "copy").rename(folder / "train")


def _only_val(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "copy")
    (folder.parent / "copy").rename(folder / "val")


def _other_classes(folder: Path) -> None:
    for part, labels in {"train": ("cat", "dog", "eel"), "val": ("bee", "cat", "dog")}.items():
        for label in labels:
            shutil.copytree(folder / "cat", folder / part / label)


def _many_other_classes(folder: Path) -> None:
    for index in range(9):
        shutil.copytree(folder / "cat", folder / "train" / f"class{index}")
    for index in range(2):
        shutil.copytree(folder / "cat", folder / "val" / f"class{index}")


def _no_held_out_image(folder: Path) -> None:
    for part in ("train", "val"):
        for label in ("cat", "dog"):
            shutil.copytree(folder / label, folder / part / label)
    shutil.rmtree(folder / "val" / "dog")
    (folder / "val" / "dog").mkdir()


def _no_held_out_classes(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "copy")
    (folder.parent / "copy").rename(folder / "train")
    (folder / "val").mkdir()
    (folder / "cat" / "0.png").rename(folder / "val" / "0.png")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_one_class, r"pets: .*\(cat\)"),
        (_no_classes, r"pets: .*cat0\.png, 20 "),
        (_no_images, r"pets/dog: "),
        (_one_image, r"pets: .*\bdog .*\b1 image\b"),
        (_copies, r"pets: .*\bdog .*\b1 image, 10 times\b"),
        (_broken_link, r"pets/eel: .*/nowhere/eel\b"),
        (_only_train, r"pets: train/ "),
        (_only_val, r"pets: val/ .*train=FOLDER val=val,"),
        (_other_classes, r"pets: train .*\bbee\b.* val .*\beel\b"),
        (_many_other_classes, r"pets: val .*class2, .*, class6 and 2 "),
        (_no_held_out_image, r"pets: val .*\bdog\b"),
        (_no_held_out_classes, r"pets/val: .*\b1 "),
    ],
)
def test_a_folder_that_is_no_data_set(
    folder: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    spoil(folder)
    with pytest.raises(UserError, match=reason) as caught:
        load_data(str(folder))
    assert "\n" not in str(caught.value)


def test_an_empty_folder_and_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^{tmp_path}: "):
        load_data(str(tmp_path))
    with pytest.raises(UserError, match=r"'digit': .*\bdigits\b"):
        load_data("digit")
    with pytest.raises(UserError, match=r"'': .*cifar10, cifar100, digits"):
        load_data("")


def test_a_folder_that_may_not_be_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list_folder = os.scandir

    def refuse(path: str) -> object:  # chmod does not stop the root user, who runs some tests
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied", path)
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"pets/dog: .*\(Permission denied\)"):
        load_data(str(folder))


def test_a_path_that_is_not_there(folder: Path, here: Path) -> None:
    with pytest.raises(UserError, match=rf"pest: .*{here}; .* {here}/pets\?"):
        load_data("./pest")
    with pytest.raises(UserError, match=rf"nowhere/near/pets: .*\bnowhere in {here}"):
        load_data("nowhere/near/pets")
    with pytest.raises(UserError, match=r"cat/0\.png: "):
        load_data("pets/cat/0.png")


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("my pets (2026)", "my_pets_2026"),
        ("it's; rm -rf $HOME", "it_s_rm_-rf_HOME"),
        ("v1.2-final_b", "v1.2-final_b"),
        ("Blüten", "Blüten"),
    ],
)
def test_runs_are_filed_under_a_name_that_needs_no_quotes(
    folder: Path, called: str, name: str
) -> None:
    assert load_data(str(folder.rename(folder.parent / called))).name == name


def test_the_name_is_the_same_from_wherever_the_folder_is_seen(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "cat")
    assert load_data("..").name == "pets"
    monkeypatch.chdir(folder)
    assert load_data(".").name == "pets"
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_data("~/pets/").name == "pets"


def test_a_name_with_no_letter_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"/!!: "):
        load_data(str(folder.rename(folder.parent / "!!")))


@pytest.mark.parametrize("name", ["digits", "Digits", "imagenet", "random"])
def test_a_folder_may_not_take_the_name_of_a_data_set(here: Path, folder: Path, name: str) -> None:
    folder.rename(here / name)
    with pytest.raises(UserError, match=rf"\b{name} .* ln -s {name} my_{name}"):
        load_data(f"./{name}")
    (here / f"my_{name}").symlink_to(here / name)  # as the message says
    assert load_data(f"my_{name}").name == f"my_{name}"
    assert load_data("digits").labels == tuple("0123456789")


@pytest.mark.parametrize("format", ["jpg", "png", "tif", "webp"])
def test_photos_are_turned_upright(tmp_path: Path, format: str) -> None:
    image = Image.new("RGB", (64, 32), "blue")
    image.paste("red", (0, 0, 32, 32))  # left, and on top once it is turned
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.save(tmp_path / f"turned.{format}", exif=exif)
    upright = open_image(tmp_path / f"turned.{format}")
    assert upright.size == (32, 64)
    assert upright.getpixel((16, 8))[0] > 200
    assert upright.getpixel((16, 56))[2] > 200


def _palette() -> Image.Image:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    return image


@pytest.mark.parametrize(
    ("image", "name", "options", "expected"),
    [
        (Image.new("1", (4, 4), 1), "bilevel.png", {}, (255, 255, 255)),
        (Image.new("L", (4, 4), 77), "grey.png", {}, (77, 77, 77)),
        (Image.new("L", (4, 4), 77), "transparent_grey.png", {"transparency": 77}, (255,) * 3),
        (Image.new("LA", (4, 4), (0, 51)), "grey_alpha.png", {}, (204, 204, 204)),
        (Image.new("RGBA", (4, 4), (255, 0, 0, 51)), "alpha.png", {}, (255, 204, 204)),
        (Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "alpha.tif", {}, (255, 255, 255)),
        (_palette(), "palette.png", {}, (200, 100, 50)),
        (_palette(), "palette.gif", {}, (200, 100, 50)),
        (_palette(), "transparent.gif", {"transparency": 1}, (255, 255, 255)),
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "print.tif", {}, (255, 0, 0)),
        (Image.new("I;16", (4, 4), 0x7F80), "deep.png", {}, (127, 127, 127)),
        (Image.new("I;16", (4, 4), 0x7F80), "deep.tif", {}, (127, 127, 127)),
        (Image.new("I;16B", (4, 4), 0x7F80), "deep_big_endian.tif", {}, (127, 127, 127)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_of_image_becomes_rgb_the_same_way(
    tmp_path: Path,
    image: Image.Image,
    name: str,
    options: dict[str, int],
    expected: tuple[int, int, int],
) -> None:
    image.save(tmp_path / name, **options)
    learned, served = open_image(tmp_path / name), decode((tmp_path / name).read_bytes())
    assert learned.mode == "RGB"
    assert learned.getpixel((2, 2)) == expected
    assert learned.tobytes() == served.tobytes()


@pytest.mark.parametrize("image", [Image.new("L", (9, 9), 7), Image.new("RGBA", (9, 9))])
def test_validation_sees_an_image_and_its_file_alike(tmp_path: Path, image: Image.Image) -> None:
    image.save(tmp_path / "image.png")
    samples = [(image, 0), (tmp_path / "image.png", 1)]
    pixels, labels = next(pixel_batches(samples, SMALL.preprocess, size=2))
    assert (pixels[0] == pixels[1]).all()
    assert labels.tolist() == [0, 1]


def test_validation_sees_what_a_server_sees(tmp_path: Path) -> None:
    file, preprocess = tmp_path / "large.jpg", SMALL.preprocess
    sample_photos(1)[0].resize((500, 300)).save(file)
    image = decode(file.read_bytes(), least=preprocess.least)
    assert image.size == (125, 75)
    served = preprocess(image)
    pixels, _ = next(pixel_batches([(file, 0)], preprocess, size=1))
    assert (pixels[0] == served).all()
    held_out = ImageData(name="one", labels=("a",), train=[], val=[(file, 0)])
    batch = next(iter(Loaders(held_out, SMALL).val_dataloader()))
    assert (batch.pixels[0].numpy() == served).all()


def test_augmentation_gets_all_pixels(tmp_path: Path) -> None:
    file = tmp_path / "large.jpg"
    Image.new("RGB", (500, 300)).save(file)
    assert open_image(file).size == (500, 300)


def test_sample_photos_are_real_and_repeatable() -> None:
    photos = sample_photos(6)
    assert [photo.tobytes() for photo in photos] == [p.tobytes() for p in sample_photos(6)]
    assert all(np.asarray(photo).std() > 10 for photo in photos)
