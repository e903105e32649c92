"""Preprocessing: decodes, resizes and crops encoded images to the pixels a network takes.

Validation, calibration and serving all use it, so they see the same pixels::

    image = decode(source, shorter=preprocess.shorter)
    pixels = preprocess(image)

An image far larger than the crop is first shrunk by a whole number, which is cheap, and then
resampled: a JPEG while it is decoded, others before they are resized. Both stop at :data:`GAP`
times the size wanted, so an image less than 2 x GAP times that size is resampled from all of its
pixels, as ever.

Casting and normalisation are not here: they are the first layer of the network
(:class:`models.classifier.Classifier`).
"""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import AvifImagePlugin, Image, ImageFile, UnidentifiedImageError

from core.errors import UserError, first_line
from core.images.colour import set_key_colour, to_rgb
from core.images.jpeg import ended, is_cut_short, is_jpeg, lost_rows
from core.images.limits import PatientFile, bomb_in_body, bomb_in_header
from core.images.metadata import orientation_in, without_metadata
from core.images.pnm import load_pnm
from core.images.tiff import describe_samples, is_tiff

Pixels = npt.NDArray[np.uint8]
Interpolation = Literal["bilinear", "bicubic"]
CropMode = Literal["center", "squash", "border"]
Truncated = Literal["refuse", "accept"]

# An image is held against ``max_pixels``, and refused with its size; Pillow would warn of some.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow calls a format, and what people call it. Pillow knows many more, some of them through
# other programs (EPS through Ghostscript).
_NAMES = {
    "JPEG": "JPEG",
    "PNG": "PNG",
    "WEBP": "WebP",
    "GIF": "GIF",
    "BMP": "BMP",
    "TIFF": "TIFF",
    "AVIF": "AVIF",
    "JPEG2000": "JPEG 2000",
    "PPM": "PPM",
}
if find_spec("pillow_heif"):  # the extra heic
    import pillow_heif

    pillow_heif.register_heif_opener(
        thumbnails=False, depth_images=False, aux_images=False, decode_threads=1
    )
    _NAMES["HEIF"] = "HEIC"
FORMATS = tuple(_NAMES)  # for Pillow
TYPES = tuple(_NAMES.values())  # for people: errors, pages and docs
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # images are decoded side by side

MAX_PIXELS = 89_478_485  # 1 GiB as RGBA in 24 bits: from here on Pillow warns
# What it saves and changes: python -m bench study decoding. Not in the manifest: it is no property
# of a network, and the golden batch starts from pixels.
GAP = 2.0
_START = 16  # bytes that tell a format
# Of a JPEG that is cut short, at most: two rows of blocks, and one row in so many.
_MAX_LOST_ROWS, _MAX_LOST_SHARE = 32, 16


class ImageError(UserError):
    """An image that cannot be decoded."""


class UnsupportedImageError(ImageError):
    """An image of a type that is not accepted, though it may be sound."""


class TooManyPixelsError(ImageError):
    """An image whose header promises more pixels than are allowed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocess:
    """Resize, then crop the centre.

    Attributes:
        resize: length in pixels that one side, or each, is scaled to; see ``crop_mode``.
        crop: side in pixels of the square cut from the centre. What it has more than the resized
            image is ``fill``.
        interpolation: how Pillow resamples; it also low-passes when it shrinks an image.
        crop_mode: timm's name of what is resized. ``center``: the shorter side. ``squash``: both
            sides, so proportions change. ``border``: the longer side.
        fill: R, G, B around an image that does not fill the crop.
    """

    resize: int
    crop: int
    interpolation: Interpolation = "bilinear"
    crop_mode: CropMode = "center"
    fill: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        if min(self.crop, self.resize) < 1:
            raise UserError(
                f"crop is {self.crop} and resize is {self.resize}: both must be at least 1"
            )
        for name, allowed in (("interpolation", _RESAMPLING), ("crop_mode", get_args(CropMode))):
            if (value := getattr(self, name)) not in allowed:
                raise UserError(f"{name} is {value!r}: it must be one of {list(allowed)}")
        if not all(0 <= value <= 255 for value in self.fill):
            raise UserError(f"fill is {list(self.fill)}: each must lie in 0..255")

    def at(self, size: int) -> Preprocess:
        """Returns the same for a crop of ``size`` pixels: what is resized keeps its proportion."""
        if size < 1:
            raise UserError(f"size is {size}: it must be at least 1")
        resize = max(round(self.resize * size / self.crop), 1)
        return replace(self, resize=resize, crop=size)

    @property
    def shorter(self) -> int:
        """Returns the length in pixels below which :func:`decode` must not take a shorter side."""
        return math.ceil(GAP * self.resize)

    def __call__(self, image: Image.Image, *, gap: float | None = GAP) -> Pixels:
        """Returns ``image`` as uint8 pixels of shape (crop, crop, 3), RGB.

        Resampling runs once, over the part of the source that the crop keeps.

        Args:
            image: upright, of any mode.
            gap: how many times larger than wanted the image stays when it is first shrunk by a
                whole number; None resamples all pixels.
        """
        steps = self._steps(*image.size)
        (width, left, right), (height, top, bottom) = map(self._kept, image.size, steps)
        resized = to_rgb(image).resize(
            (width, height),
            resample=_RESAMPLING[self.interpolation],
            box=(left, top, right, bottom),
            reducing_gap=gap,
        )
        if resized.size != (self.crop, self.crop):
            canvas = Image.new("RGB", (self.crop, self.crop), self.fill)
            canvas.paste(resized, ((self.crop - width) // 2, (self.crop - height) // 2))
            resized = canvas
        return np.asarray(resized, dtype=np.uint8)

    def _steps(self, width: int, height: int) -> tuple[float, float]:
        """Returns the horizontal and vertical scale, in source pixels per pixel of the result."""
        if self.crop_mode == "squash":
            return width / self.resize, height / self.resize
        whole = min if self.crop_mode == "center" else max
        return (whole(width, height) / self.resize,) * 2

    def _kept(self, length: int, step: float) -> tuple[int, float, float]:
        """Returns what the crop keeps of a side: pixels of the result, and ends in the source."""
        margin = (length - self.crop * step) / 2
        if margin < 0:  # the crop keeps all of it, and has room for more
            return max(round(length / step), 1), 0, length
        return self.crop, margin, length - margin


def decode(
    source: bytes | Path,
    *,
    max_pixels: int = MAX_PIXELS,
    shorter: int | None = None,
    truncated: Truncated = "refuse",
) -> Image.Image:
    """Returns the image in ``source`` (its bytes, or a file), upright, RGB, 8 bits a channel.

    EXIF rotation is honoured and other metadata is not looked at, transparency is laid over white,
    the first frame of an animation is taken. Of :data:`FORMATS` only.

    Args:
        source: an encoded image.
        max_pixels: how many are allowed.
        shorter: a JPEG may come at 1/2, 1/4 or 1/8 of its size, as long as its shorter side keeps
            this many pixels: its 8x8 blocks are then decoded at that size, in less time and
            memory. Where its sides do not divide, the last column and row are partly padding, so
            its centre lies up to half a pixel further. None, and any other format, gives all
            pixels.
        truncated: whether to take a JPEG that is cut short, with its last rows grey or coarse:
            at most 32 of them, and a sixteenth of all.

    Raises:
        ImageError: the bytes are not an image, or are cut short.
        UnsupportedImageError: a kind of image that is not taken.
        TooManyPixelsError: more than ``max_pixels``, judged from the header before decoding: a
            few bytes can promise more pixels than there is memory for.
    """
    name = str(source) if isinstance(source, Path) else f"{len(source)} bytes"
    data = b""
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        data, turn = _stripped(data, max_pixels)
        try:
            image = _load(data, max_pixels, shorter)
        except OSError:
            if not is_jpeg(data) or not is_cut_short(data):
                raise
            _check_loss(data, truncated)
            image = _load(ended(data), max_pixels, shorter)
        turn = max(turn, orientation_in(image.info))
        upright = to_rgb(image)
        return upright.transpose(_TURNS[turn]) if turn > 1 else upright
    except Exception as error:  # Pillow's parsers let many kinds escape on broken bytes
        raise _image_error(error, name, data, max_pixels) from error


def check_header(file: Path, *, max_pixels: int = MAX_PIXELS) -> None:
    """Raises what :func:`decode` would, as far as the header of a file tells; decodes no pixels.

    It goes the same way up to the open image, so it refuses nothing that decodes.

    Raises:
        ImageError: it cannot be opened, or its first bytes are none of :data:`FORMATS`.
        TooManyPixelsError: its header promises more than ``max_pixels``.
    """
    data = b""
    try:
        with file.open("rb") as source:
            data = source.read(_START)
            if not _is_accepted(data):  # the rest may be long
                raise UnidentifiedImageError
            data += source.read()
        data, _ = _stripped(data, max_pixels)
        _open(data, max_pixels).close()
    except Exception as error:
        raise _image_error(error, str(file), data, max_pixels) from error


def _image_error(error: Exception, name: str, data: bytes, max_pixels: int) -> ImageError:
    """Returns what to raise when ``error`` was raised while an image was opened or decoded."""
    match error:
        case ImageError():
            return type(error)(f"{name}: {error}")
        case UnidentifiedImageError():
            if reason := _unsupported(data):
                return UnsupportedImageError(f"{name}: {reason}")
            return ImageError(f"{name}: not a {', '.join(TYPES[:-1])} or {TYPES[-1]} image")
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return TooManyPixelsError(f"{name}: too many pixels, the limit is {max_pixels}")
        case OSError(strerror=str(reason)):  # of the file, not of what is in it
            return ImageError(f"{name}: cannot be read ({reason})")
        case OSError() | SyntaxError() | ValueError():  # Pillow's own words
            return ImageError(f"{name}: cannot be read as an image ({first_line(error)})")
    return ImageError(f"{name}: cannot be read as an image ({type(error).__name__})")


def _is_accepted(start: bytes) -> bool:
    """Returns whether any of :data:`FORMATS` begins with these bytes."""
    Image.init()
    tests = (Image.OPEN[name][1] for name in FORMATS)
    return any(test is None or test(start) for test in tests)


def _stripped(data: bytes, max_pixels: int) -> tuple[bytes, int]:
    """Returns an image file that may be opened, without its metadata, and how to turn its pixels.

    Raises:
        TooManyPixelsError: it would cost too much even to open.
    """
    data, turn = without_metadata(data)
    if bomb := bomb_in_header(data, max_pixels):
        raise TooManyPixelsError(bomb)
    return data, turn


def _open(data: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """Returns an image file opened, its pixels not loaded.

    Raises:
        TooManyPixelsError: its header promises more than ``max_pixels``.
    """
    image = Image.open(PatientFile(data), formats=FORMATS)
    width, height = image.size
    if width * height > max_pixels:
        raise TooManyPixelsError(
            f"{width}x{height} is {width * height} pixels, the limit is {max_pixels}"
        )
    return image


def _load(data: bytes, max_pixels: int, shorter: int | None) -> Image.Image:
    """Returns the pixels of an image file, as they lie in it."""
    with _open(data, max_pixels) as image:
        if bomb := bomb_in_body(image, data, max_pixels):
            raise TooManyPixelsError(bomb)
        if image.format == "PPM":
            return load_pnm(image, data)
        if image.format == "PNG":
            set_key_colour(image, bits=data[24])
        if shorter is not None:
            image.draft(None, (shorter, shorter))
        image.load()
        return image


def _check_loss(data: bytes, truncated: Truncated) -> None:
    """Raises ImageError unless a JPEG that is cut short may be taken."""
    lost, height = lost_rows(data)
    if lost is None:
        reason = "more is missing than its last rows"
    elif lost > min(_MAX_LOST_ROWS, height // _MAX_LOST_SHARE):
        reason = f"its last {lost} of {height} rows are missing"
    elif truncated == "refuse":
        missing = f"its last {lost} of {height} rows are" if lost else "only its end marker is"
        ways = "--truncated accept, or POCKETNETS_TRUNCATED=accept in a service, takes it"
        reason = f"{missing} missing; {ways}"
    else:
        return
    raise ImageError(f"a JPEG that is cut short: {reason}")


def _unsupported(data: bytes) -> str | None:
    """Returns what kind of image ``data`` is, if it is one that Pillow cannot open."""
    if is_tiff(data) and (samples := describe_samples(data)):
        return f"a TIFF with {samples}: save it with 8 or 16 bits"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS and "HEIF" not in FORMATS:
        return "a HEIC image, which needs pillow-heif: pip install '.[heic]'"
    return None


def encode_png(image: Image.Image) -> bytes:
    """Returns ``image`` as the bytes of a PNG file, which :func:`decode` gives back unchanged."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
