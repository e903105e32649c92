"""A good image in every form that the service takes, as the bytes of a file."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from core import preprocess  # noqa: F401 - it registers HEIC

WIDTH, HEIGHT = 48, 40

_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))


@cache
def samples() -> dict[str, bytes]:
    """Returns the files by name; the first word of a name is the format."""
    rgb = _picture()
    rgba = rgb.copy()
    rgba.putalpha(Image.linear_gradient("L").resize(rgb.size))
    grey, deep = rgb.convert("L"), np.asarray(rgb.convert("L")).astype(np.uint16) * 257
    extra = {"exif": _exif(), "icc_profile": _profile()}
    frames: dict[str, Any] = {"save_all": True, "append_images": [rgb.rotate(90)], "duration": 50}
    made = {
        "jpeg": _file(rgb, "JPEG"),
        "jpeg progressive": _file(rgb, "JPEG", progressive=True, **extra),
        "jpeg cmyk": _file(rgb.convert("CMYK"), "JPEG"),
        "jpeg grey": _file(grey, "JPEG", restart_marker_blocks=2, comment="none", **extra),
        "png": _file(rgb, "PNG", **extra),
        "png palette": _file(rgb.quantize(16), "PNG", transparency=3),
        "png 16 bit": _file(Image.fromarray(deep), "PNG"),
        "png alpha": _file(rgba, "PNG"),
        "png interlaced": interlaced(np.asarray(rgb)),
        "png animated": _file(rgb, "PNG", **frames),
        "webp": _file(rgb, "WEBP", **extra),
        "webp lossless": _file(rgba, "WEBP", lossless=True),
        "webp animated": _file(rgba, "WEBP", **frames),
        "gif": _file(rgb.quantize(32), "GIF"),
        "gif animated": _file(rgb, "GIF", transparency=0, **frames),
        "bmp": _file(rgb, "BMP"),
        "bmp palette": _file(rgb.quantize(200), "BMP"),
        "tiff": _file(rgb, "TIFF", **extra),
        "tiff 16 bit": _file(Image.fromarray(deep), "TIFF"),
        "tiff group4": _file(rgb.convert("1"), "TIFF", compression="group4"),
        "tiff float": _file(grey.convert("F"), "TIFF"),
    }
    made |= {
        "avif": _file(rgb, "AVIF", **extra),
        "avif alpha": _file(rgba, "AVIF"),
        "avif animated": _file(rgb, "AVIF", **frames),
        "jpeg2000": _file(rgb, "JPEG2000", irreversible=True, quality_layers=[20, 5]),
        "jpeg2000 stream": _file(rgba, "JPEG2000", no_jp2=True),
        "jpeg2000 tiles": _file(grey, "JPEG2000", tile_size=(32, 16), progression="RPCL"),
        "jpeg2000 16 bit": _file(Image.fromarray(deep), "JPEG2000"),
        "ppm": _file(rgb, "PPM"),
        "ppm plain": b"P3 # plain\n%d %d 200\n" % rgb.size + b" 1 99 #\n200" * (WIDTH * HEIGHT),
        "ppm 16 bit": b"P5\n%d %d\n65535\n" % rgb.size + deep.astype(">u2").tobytes(),
        "ppm bitmap": _file(rgb.convert("1"), "PPM"),
        "heif": _file(rgb, "HEIF", **extra),
        "heif alpha": _file(rgba, "HEIF"),
        "heif tiles": _file(rgb.resize((130, 70)), "HEIF", tile_size=64),
        "heif several": _file(rgb, "HEIF", **frames),
    }
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd"):
        made[f"tiff {compression}"] = _file(rgb, "TIFF", compression=compression)
    return made


def chunk(kind: bytes, body: bytes) -> bytes:
    """Returns a chunk of a PNG file."""
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + checksum


def png(width: int, height: int, bits: int, colour: int, *chunks: bytes, passes: int = 0) -> bytes:
    """Returns a PNG file of this header and ``chunks``."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, passes)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def interlaced(pixels: np.ndarray) -> bytes:
    """Returns ``pixels``, uint8 (H, W, 3), as an interlaced PNG, which Pillow does not write."""
    rows = bytearray()
    for left, top, across, down in (*_ADAM7, (0, 1, 1, 2)):
        for row in pixels[top::down, left::across]:
            rows += b"\0" + row.tobytes()
    data = chunk(b"IDAT", zlib.compress(bytes(rows)))
    return png(pixels.shape[1], pixels.shape[0], 8, 2, data, passes=1)


def _picture() -> Image.Image:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    noise = np.random.default_rng(0).integers(0, 40, (HEIGHT, WIDTH))
    channels = np.stack([x * 4 + noise, y * 4 + noise, (x + y) * 2 + noise], axis=2)
    return Image.fromarray(channels.astype(np.uint8))


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    exif[0x010E] = "a description"
    exif[0x011A] = 72.5  # a rational
    exif.get_ifd(0x8769)[0x9286] = b"a comment"
    return exif.tobytes()


def _profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _file(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()
