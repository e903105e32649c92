"""Reads an image's orientation and strips all other metadata.

Decoders never see the metadata, so broken or huge metadata cannot make them refuse a valid image.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Any

from core.images.boxes import all_boxes
from core.images.jpeg import ADOBE, APP0, APP15, COMMENT, END, EXIF, SCAN, is_jpeg, segments
from core.images.limits import MAX_PARTS
from core.images.tiff import entries, is_tiff, orientation_of, with_tags_only

# TIFF tags that describe the layout and meaning of its pixels.
_PIXEL_TAGS = frozenset(
    {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320}
    | {322, 323, 324, 325, 338, 339, 340, 341, 347, *range(512, 522), *range(529, 533)}
    | {0xBC01, 50674}
)
_XMP_TAG = 700
_EXIF_HEAD, _XMP_HEAD = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_EXIF_KEY, _XMP_KEY = b"Raw profile type exif", b"XML:com.adobe.xmp"  # keywords of PNG texts
_MAX_TEXT = 1 << 20  # bytes; a longer compressed text is inflated only so far
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


def without_metadata(data: bytes) -> tuple[bytes, int]:
    """Returns an image file without its metadata, and its EXIF orientation (1..8; 1 is upright).

    A broken file is left unchanged from the defect on. GIF, BMP and WebP files are not changed. The
    orientation of WebP and AVIF is read by :func:`orientation_in`, after they are opened.

    Raises:
        OSError: more segments, chunks or boxes than the limits allow.
    """
    if is_jpeg(data):
        return _jpeg(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _png(data)
    if is_tiff(data):
        return with_tags_only(data, _PIXEL_TAGS), _orientation(data, _xmp_in_tiff(data))
    if data[4:8] in (b"ftyp", b"jP  "):
        return _boxed(data), 1
    return data, 1


def orientation_in(info: Mapping[Any, Any]) -> int:
    """Returns the EXIF orientation (1..8) in the ``info`` of an image opened by Pillow."""
    return _orientation(info.get("exif") or b"", info.get("xmp") or b"")


def _orientation(exif: bytes, xmp: bytes) -> int:
    """Returns the orientation by EXIF, else by XMP, else 1 (upright)."""
    exif = exif.removeprefix(_EXIF_HEAD).removeprefix(_EXIF_HEAD)  # some programs write it twice
    if found := orientation_of(exif):
        return found
    named = _XMP_ORIENTATION.search(xmp)
    return int(named[1]) if named else 1


def _jpeg(data: bytes) -> tuple[bytes, int]:
    """Drops comments and application segments except JFIF and Adobe, which define the colours."""
    kept, done = [], 0
    exif: list[bytes] = []
    xmp = b""
    for number, (marker, at, start, end) in enumerate(segments(data)):
        if number == MAX_PARTS:
            raise OSError(f"more than {MAX_PARTS} segments")
        if marker in (SCAN, END) or not start <= end <= len(data):
            break
        if marker == COMMENT or (APP0 < marker <= APP15 and marker != ADOBE):
            kept.append(data[done:at])
            done = end
            if marker == EXIF and data.startswith(_EXIF_HEAD, start):
                exif.append(data[start + len(_EXIF_HEAD) : end])
            elif marker == EXIF and data.startswith(_XMP_HEAD, start):
                xmp = data[start + len(_XMP_HEAD) : end]
    return _joined(data, kept, done), _orientation(b"".join(exif), xmp)


def _xmp_in_tiff(data: bytes) -> bytes:
    for entry in entries(data):
        if entry.tag == _XMP_TAG:
            return data[entry.place : entry.place + entry.length]
    return b""


def _png(data: bytes) -> tuple[bytes, int]:
    """Drops all ancillary chunks except tRNS (transparency)."""
    kept, done = [], 0
    exif = b""
    texts: dict[bytes, tuple[bytes, bytes]] = {}
    at = 8
    for _ in range(MAX_PARTS):
        kind, start = data[at + 4 : at + 8], at + 8
        end = start + int.from_bytes(data[at : at + 4])
        if len(kind) < 4 or not kind.isalpha() or kind == b"IEND" or end + 4 > len(data):
            break
        if kind[0] & 0x20 and kind != b"tRNS":
            kept.append(data[done:at])
            done = end + 4
            body = data[start:end]
            if kind == b"eXIf":
                exif = body
            elif kind in (b"tEXt", b"zTXt", b"iTXt"):
                key, _, text = body.partition(b"\0")
                if key in (_EXIF_KEY, _XMP_KEY):
                    texts[key] = kind, text
        at = end + 4
    else:
        raise OSError(f"more than {MAX_PARTS} chunks")
    if not exif and _EXIF_KEY in texts:
        exif = _from_hex(_text(*texts[_EXIF_KEY]))
    xmp = _text(*texts[_XMP_KEY]) if _XMP_KEY in texts else b""
    return _joined(data, kept, done), _orientation(exif, xmp)


def _text(kind: bytes, text: bytes) -> bytes:
    """Returns the text of a chunk, given what follows its keyword; empty if it does not inflate."""
    packed = kind == b"zTXt"
    if packed:
        text = text[1:]  # skip the compression method: there is only one
    elif kind == b"iTXt":
        packed = text[:1] == b"\1"
        text = text[2:].split(b"\0", 2)[-1]  # skip language and translated keyword
    if not packed:
        return text
    try:
        return zlib.decompressobj().decompress(text, _MAX_TEXT)
    except zlib.error:
        return b""


def _from_hex(text: bytes) -> bytes:
    """Decodes a profile as ImageMagick writes it: name, length, then hexadecimal."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return b""


def _boxed(data: bytes) -> bytes:
    """Renames the boxes that refer to metadata, and JPEG 2000's resolution box, to ``free``."""
    found = [box.at for box in all_boxes(data) if box.kind in (b"cdsc", b"res ")]
    if not found:
        return data
    renamed = bytearray(data)
    for at in found:
        renamed[at + 4 : at + 8] = b"free"
    return bytes(renamed)


def _joined(data: bytes, kept: list[bytes], done: int) -> bytes:
    return b"".join([*kept, data[done:]]) if kept else data
