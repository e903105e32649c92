from __future__ import annotations

import io
import struct
import zlib
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from samples import chunk
from spoiling import EXTREME, mend

from core.images.metadata import without_metadata
from core.preprocess import decode

TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'
MUTATIONS = 1000


def picture() -> Image.Image:
    """Returns an image that looks different in all eight orientations, even as a JPEG."""
    pixels = np.zeros((24, 32, 3), np.uint8)
    pixels[:8, :16], pixels[8:, :8] = (250, 30, 30), (30, 30, 250)
    return Image.fromarray(pixels)


def encode(format: str, image: Image.Image | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    if format == "WEBP":
        options["lossless"] = True
    if format in ("AVIF", "HEIF", "JPEG"):
        chroma = {
            "AVIF": {"subsampling": "4:4:4"},
            "HEIF": {"chroma": 444},
            "JPEG": {"subsampling": 0},
        }
        options = {"quality": 100, **chroma[format], **options}
    (image or picture()).save(file, format, **options)
    return file.getvalue()


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010E] = "a description"
    block[0x011A] = 72.5
    block[0x8769] = {0x9286: b"a comment", 0x829A: 0.01}
    block[0x8825] = {1: "N", 2: (1.0, 2.0, 3.5)}
    return block.tobytes()


def turned(image: Image.Image, orientation: int) -> Image.Image:
    turn = TURNS[orientation]
    return image if turn is None else image.transpose(turn)


def same(left: Image.Image, right: Image.Image, tolerance: int = 0) -> bool:
    if left.size != right.size:
        return False
    difference = np.asarray(left).astype(int) - np.asarray(right)
    return int(np.abs(difference).max()) <= tolerance


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_every_orientation_is_honoured_once(format: str, orientation: int) -> None:
    plain = decode(encode(format))
    assert same(plain, picture(), tolerance=40)
    decoded = decode(encode(format, exif=exif(orientation)))
    assert same(decoded, turned(plain, orientation), tolerance=40)
    others = [turned(plain, other) for other in TURNS if other != orientation]
    assert not any(same(decoded, other, tolerance=40) for other in others)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "jpeg"])
def test_every_kind_of_tiff_is_turned_once(compression: str) -> None:
    plain = decode(encode("TIFF", compression=compression))
    for orientation in TURNS:
        data = encode("TIFF", compression=compression, tiffinfo={274: orientation})
        assert same(decode(data), turned(plain, orientation)), orientation


def raw_profile(block: bytes) -> str:
    return f"\nexif\n{len(block):8}\n{block.hex()}\n"


def texts(key: str, value: str, *, zip: bool = False, itxt: bool = False) -> PngInfo:
    info = PngInfo()
    add = info.add_itxt if itxt else info.add_text
    add(key, value, zip=zip)
    return info


@pytest.mark.parametrize(
    "options",
    [
        {"pnginfo": texts("Raw profile type exif", raw_profile(exif(6)))},
        {"pnginfo": texts("Raw profile type exif", raw_profile(exif(6)), zip=True)},
        {"pnginfo": texts("XML:com.adobe.xmp", (XMP % 6).decode(), itxt=True)},
        {"pnginfo": texts("XML:com.adobe.xmp", (XMP % 6).decode(), itxt=True, zip=True)},
    ],
    ids=["raw profile", "zipped profile", "XMP", "zipped XMP"],
)
def test_a_png_may_say_its_orientation_in_texts(options: dict[str, Any]) -> None:
    assert same(decode(encode("PNG", **options)), turned(picture(), 6))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_xmp_says_the_orientation_where_exif_does_not(format: str) -> None:
    plain = decode(encode(format))
    if format == "PNG":
        options: dict[str, Any] = {"pnginfo": texts("XML:com.adobe.xmp", (XMP % 8).decode())}
        options = {"pnginfo": texts("XML:com.adobe.xmp", (XMP % 8).decode(), itxt=True)}
    elif format == "TIFF":
        options = {"tiffinfo": {700: XMP % 8}}
    else:
        options = {"xmp": XMP % 8}
    assert same(decode(encode(format, **options)), turned(plain, 8))
    if format != "TIFF":
        both = encode(format, exif=exif(3), **options)
        assert same(decode(both), turned(plain, 3))


def far_ifd() -> bytes:
    """Returns an EXIF block whose sub-directory lies at a negative offset."""
    entries = [(0x0112, 3, 1, 6), (0x8769, 9, 1, 2**32 - 8), (0x8825, 9, 1, 2**32 - 1)]
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + bytes(4)


def costly() -> bytes:
    """Returns an EXIF block of 8,000 rationals, which one tag of resolution points at."""
    count = 8000
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", 3)
    entries = [(0x0112, 3, 1, 6), (0x011A, 5, count, 50), (0x011B, 5, count, 50)]
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"Exif\0\0" + head + packed + bytes(4) + struct.pack("<II", 2**32 - 1, 2**32 - 5) * count


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("block", [far_ifd(), costly()], ids=["far", "costly"])
def test_only_the_orientation_is_read(
    format: str, block: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("a block is taken apart")

    data = encode(format, exif=block)
    plain = decode(encode(format))
    monkeypatch.setattr(Image.Exif, "load", never)
    monkeypatch.setattr("PIL.TiffImagePlugin.IFDRational.__init__", never)
    assert same(decode(data), turned(plain, 6))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
@pytest.mark.parametrize(
    "block",
    [b"garbage", b"", far_ifd()[6:20], b"\xff" * 40],
    ids=["garbage", "zeros", "cut", "ones"],
)
def test_a_block_that_cannot_be_read_is_none(format: str, block: bytes) -> None:
    data = encode(format, exif=exif(1))
    with Image.open(io.BytesIO(data)) as image:
        sound = image.info["exif"].removeprefix(b"Exif\0\0")
    assert sound in data
    spoiled = mend(data.replace(sound, block.ljust(len(sound), b"\0")))
    assert same(decode(spoiled), decode(encode(format)))


def after_header(data: bytes, *chunks: bytes) -> bytes:
    return data[:33] + b"".join(chunks) + data[33:]


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(b"iCCP", b"name")],
        [chunk(b"iCCP", b"name\0\7garbage")],
        [chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(1 << 22)))],
        [chunk(b"eXIf", b"MM\0*")],
        [chunk(b"tEXt", b"Raw profile type exif\0\nexif\n  3\nzz\n")],
        [chunk(b"zTXt", b"Raw profile type exif\0\0garbage")],
        [chunk(b"zTXt", b"Raw profile type exif\0\7" + zlib.compress(b"garbage"))],
        [chunk(b"iTXt", b"XML:com.adobe.xmp\0\1")],
        [chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0garbage")],
        [chunk(b"gAMA", b""), chunk(b"cHRM", b"1"), chunk(b"pHYs", b"2"), chunk(b"sRGB", b"")],
        [chunk(b"fcTL", b"1"), chunk(b"acTL", b"2")],
        [chunk(b"tIME", b"1")[:-1] + b"\0"],
        [chunk(b"zTXt", b"%d\0\0" % i + zlib.compress(bytes(1 << 20))) for i in range(80)],
    ],
)
def test_what_a_png_says_besides_cannot_refuse_it(chunks: list[bytes]) -> None:
    data = encode("PNG")
    assert same(decode(after_header(data, *chunks)), picture())
    assert same(decode(data[:-12] + b"".join(chunks) + data[-12:]), picture())


def test_what_a_tiff_says_besides_cannot_refuse_it() -> None:
    for extra in ({34665: 7}, {34853: 2**32 - 1}, {33723: b"x"}, {700: b"\xff"}):
        assert same(decode(encode("TIFF", tiffinfo=extra)), picture())
    data = encode("TIFF", tiffinfo={282: 72.0, 40000: b"x"})
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    places = [directory + 2 + 12 * index for index in range(count)]
    spoiled = bytearray(data)
    for at in places:
        if struct.unpack_from("<H", data, at)[0] in (282, 40000):
            struct.pack_into("<HII", spoiled, at + 2, 5, 2**31, 2**32 - 1)
    assert same(decode(bytes(spoiled)), picture())


def test_what_says_the_colours_of_a_jpeg_stays() -> None:
    for options in ({"keep_rgb": True}, {}):
        data = encode("JPEG", exif=exif(1), comment=b"none", icc_profile=b"x" * 70_000, **options)
        bare, _ = without_metadata(data)
        assert len(bare) < len(data) - 70_000
        with Image.open(io.BytesIO(data)) as image:
            assert same(image, decode(data))


def spoiled(block: bytes, dice: Random) -> bytes:
    changed = bytearray(block)
    for _ in range(dice.choice([1, 1, 2, 8])):
        at = dice.randrange(len(changed))
        way = dice.random()
        if way < 0.4:
            form = dice.choice(["<B", "<H", ">H", "<I", ">I"])
            size = struct.calcsize(form)
            changed[at : at + size] = struct.pack(form, dice.choice(EXTREME) % 256**size)
        elif way < 0.8:
            changed[at] ^= 1 << dice.randrange(8)
        elif way < 0.9:
            del changed[at:]
        else:
            changed[at:at] = dice.randbytes(dice.choice([1, 2, 12]))
        changed = changed or bytearray(b"\0")
    return bytes(changed)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_no_block_refuses_an_image_or_changes_its_pixels(format: str) -> None:
    dice = Random(17)
    plain = decode(encode(format))
    allowed = {(image.size, image.tobytes()) for image in (turned(plain, each) for each in TURNS)}
    blocks = [exif(orientation) for orientation in (1, 6)]
    found = set()
    for _ in range(MUTATIONS):
        decoded = decode(encode(format, exif=spoiled(dice.choice(blocks), dice)))
        found.add((decoded.size, decoded.tobytes()))
    assert found <= allowed
    assert len(found) > 1
