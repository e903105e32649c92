from __future__ import annotations

import io

import pytest
from PIL import Image

from core import image_types
from core.image_types import list_suffixes, other_type


def boxes(brand: bytes, *compatible: bytes) -> bytes:
    """Returns the start of a file in boxes, as HEIC and AVIF are."""
    brands = b"".join(compatible)
    return (16 + len(brands)).to_bytes(4) + b"ftyp" + brand + bytes(4) + brands + bytes(40)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_types, "FORMATS", ("JPEG", "PNG"))


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("data", "name"),
    [
        (boxes(b"heic", b"mif1"), "HEIC"),
        (boxes(b"mif1", b"mif1", b"heix"), "HEIC"),
        (boxes(b"avif", b"mif1"), "AVIF"),
        (boxes(b"mif1", b"miaf", b"avif"), "AVIF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51\0\x2f", "JPEG 2000"),
        (b"\xff\x0a\0", "JPEG XL"),
        (b"%PDF-1.7", "PDF"),
    ],
)
def test_what_is_not_taken_is_named(data: bytes, name: str) -> None:
    assert (other_type(data) or "").startswith(name)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"MZ", b"\0\0\0\x18ftypisom" + bytes(9)])
def test_nothing_is_said_of_what_is_unknown_or_taken(data: bytes) -> None:
    assert other_type(data) is None


@pytest.mark.parametrize("format", ["AVIF", "JPEG2000"])
def test_what_is_taken_is_no_other_type(monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, format)
    monkeypatch.setattr(image_types, "FORMATS", ("JPEG",))
    assert other_type(file.getvalue())
    monkeypatch.setattr(image_types, "FORMATS", ("JPEG", format))
    assert other_type(file.getvalue()) is None


def test_what_an_extra_would_read_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_types, "FORMATS", ("JPEG",))
    assert "[heic]" in (other_type(boxes(b"heic")) or "")
    monkeypatch.setattr(image_types, "FORMATS", ("JPEG", "HEIF"))
    assert other_type(boxes(b"heic")) is None


@pytest.mark.usefixtures("few")
def test_suffixes_are_those_of_the_accepted_types() -> None:
    assert {".jpg", ".jpeg", ".jfif", ".png", ".apng"} <= set(list_suffixes())
    assert not {".webp", ".pdf", ".eps"} & set(list_suffixes())
