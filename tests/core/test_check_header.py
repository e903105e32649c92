"""What a look at the header says of a file, and what decoding it says."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from core.preprocess import ImageError, UnsupportedImageError, check_header, decode


def encode(format: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 12), "green").save(file, format, **options)
    return file.getvalue()


def with_chunk(kind: bytes, body: bytes, *, right: bool = True) -> bytes:
    """Returns a PNG with one chunk more, with a right checksum or a wrong one."""
    png = encode("PNG")
    check = zlib.crc32(kind + body) ^ (not right)
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)
    return png[:33] + chunk + png[33:]


def with_private_tag() -> bytes:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[65000] = (1,) * 120_000
    tags.tagtype[65000] = 3
    return encode("TIFF", tiffinfo=tags)


def with_broken_reference() -> bytes:
    """Returns an AVIF whose EXIF no decoder finds."""
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "somebody"
    avif = encode("AVIF", exif=exif)
    at = avif.index(b"cdsc")
    return avif[: at + 4] + b"\xff\xff" + avif[at + 6 :]


def sound() -> Iterator[tuple[str, bytes]]:
    for kind in (b"tEXt", b"eXIf", b"iTXt", b"zTXt"):
        yield f"wrong checksum of {kind.decode()}", with_chunk(kind, b"key\0text", right=False)
    for kind in (b"pHYs", b"gAMA", b"cHRM", b"sRGB"):
        yield f"short {kind.decode()}", with_chunk(kind, b"\0")
    yield "iCCP of unknown method", with_chunk(b"iCCP", b"name\0\x07profile")
    yield "long private tag", with_private_tag()
    yield "broken reference", with_broken_reference()


def broken() -> Iterator[tuple[str, bytes]]:
    yield "wrong checksum of the header", encode("PNG")[:29] + bytes(4) + encode("PNG")[33:]
    yield "cut in the header", encode("PNG")[:20]
    yield "a TIFF cut short", encode("TIFF")[:30]
    yield "an AVIF cut short", encode("AVIF")[:40]
    yield "text", b"no image at all, but a longer text"


def refusals(file: Path) -> set[tuple[type[ImageError], str]]:
    """Returns what decoding and looking at the header say of a file that both refuse."""
    said = set()
    for judge in (decode, check_header):
        with pytest.raises(ImageError) as caught:
            judge(file)
        said.add((caught.type, str(caught.value)))
    return said


@pytest.mark.parametrize("content", [pytest.param(each, id=name) for name, each in sound()])
def test_what_decodes_passes(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "image").write_bytes(content)
    assert decode(tmp_path / "image").size == (16, 12)
    check_header(tmp_path / "image")


@pytest.mark.parametrize("content", [pytest.param(each, id=name) for name, each in broken()])
def test_what_cannot_be_opened_is_refused_by_both(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "image").write_bytes(content)
    assert len(refusals(tmp_path / "image")) == 1


def test_a_kind_that_is_not_taken_is_named_by_both(tmp_path: Path) -> None:
    content = bytearray(encode("TIFF"))
    at = content.index(struct.pack("<HHI", 258, 3, 3))  # BitsPerSample
    place = int.from_bytes(content[at + 8 : at + 12], "little")
    content[place : place + 6] = struct.pack("<HHH", 12, 12, 12)
    (tmp_path / "image").write_bytes(content)
    ((kind, _),) = refusals(tmp_path / "image")
    assert kind is UnsupportedImageError


def test_a_file_that_is_not_there_is_no_broken_image(tmp_path: Path) -> None:
    assert refusals(tmp_path / "image") == {
        (ImageError, f"{tmp_path}/image: cannot be read (No such file or directory)")
    }
