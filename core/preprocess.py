"""Preprocessing: decodes, resizes and crops encoded images to the input pixels of a network.

Validation, calibration and serving all use it, so they get the same pixels::

    image = decode(source, least=preprocess.least, mode=preprocess.mode)
    pixels = preprocess(image)

An image much larger than the crop is first shrunk by a whole factor, which is cheap: a JPEG while
decoding, other types before resampling. It stays at least :data:`GAP` times as large as the target,
so an image less than 2 x GAP times as large is resampled from all its pixels.

Casting and normalisation are not done here: they are the first layer of the network
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
from core.image_size import Size, sides, size_of, size_text
from core.images.colour import Mode, set_key_colour, to_mode
from core.images.jpeg import ended, is_cut_short, is_jpeg, loss
from core.images.limits import PatientFile, bomb_in_body, bomb_in_header
from core.images.metadata import orientation_in, without_metadata
from core.images.pnm import load_pnm
from core.images.tiff import describe_samples, is_tiff

Pixels = npt.NDArray[np.uint8]
Interpolation = Literal["bilinear", "bicubic"]
CropMode = Literal["center", "squash", "border"]
Truncated = Literal["refuse", "accept"]

# Images are checked against ``max_pixels`` here, so Pillow's own warning is not needed.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

MODES: tuple[Mode, ...] = ("L", "LA", "RGB", "RGBA")  # of images with 1 to 4 channels
CHANNELS = "it must be 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA)"
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
_SIDEWAYS = 5  # from this orientation on, height and width are exchanged

# Accepted formats: Pillow's name, and the usual one. Pillow reads many more, some by running other
# programs (EPS with Ghostscript).
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
FORMATS = tuple(_NAMES)  # Pillow's names
TYPES = tuple(_NAMES.values())  # names for error messages, pages and docs
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # several images are decoded in parallel

MAX_PIXELS = 89_478_485  # Pillow's own limit for its warning: 1 GiB / 4 / 3
# Its effect on time and pixels: python -m bench study decoding. It is not in the manifest, as it is
# no property of a network, and the golden batch consists of pixels.
GAP = 2.0
_START = 16  # bytes that identify a format


class ImageError(UserError):
    """An image that cannot be decoded."""


class UnsupportedImageError(ImageError):
    """An image of a type that is not accepted."""


class TooManyPixelsError(ImageError):
    """An image whose header declares more pixels than allowed, or that costs as much to decode."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocess:
    """Resizes an image, then crops its centre.

    Attributes:
        resize: size in pixels to which an image is scaled, see ``crop_mode``: the side of a square,
            or height and width.
        crop: what is cut from the centre, likewise. Where the resized image is smaller, the rest is
            ``fill``.
        interpolation: Pillow's resampling filter; it also low-passes when it shrinks an image.
        crop_mode: how the image becomes ``resize``, by timm's names. ``center``: it covers that, so
            its shorter side has the side of a square. ``squash``: it is that, which changes the
            proportions. ``border``: it fits into that, by its longer side.
        fill: each channel (0..255) around an image that does not fill the crop; black by default.
        channels: 1 for grey, 3 for RGB; 2 and 4 for these with alpha.

    Raises:
        UserError: an attribute is out of range.
    """

    resize: Size
    crop: Size
    interpolation: Interpolation = "bilinear"
    crop_mode: CropMode = "center"
    fill: tuple[int, ...] = (0, 0, 0)
    channels: int = 3

    def __post_init__(self) -> None:
        for name in ("resize", "crop"):  # one form of a size, whichever was given
            object.__setattr__(self, name, size_of(*sides(getattr(self, name))))
        if min(*self.size, *sides(self.resize)) < 1:
            crop, resize = size_text(self.crop), size_text(self.resize)
            raise UserError(f"crop is {crop} and resize is {resize}: both must be at least 1")
        for name, allowed in (("interpolation", _RESAMPLING), ("crop_mode", get_args(CropMode))):
            if (value := getattr(self, name)) not in allowed:
                raise UserError(f"{name} is {value!r}: it must be one of {list(allowed)}")
        if not 1 <= self.channels <= len(MODES):
            raise UserError(f"channels is {self.channels}: {CHANNELS}")
        if self.fill == (0, 0, 0):
            object.__setattr__(self, "fill", (0,) * self.channels)
        if len(self.fill) != self.channels:
            raise UserError(f"fill is {list(self.fill)}: it must have {self.channels} values")
        if not all(0 <= value <= 255 for value in self.fill):
            raise UserError(f"fill is {list(self.fill)}: each must lie in 0..255")

    def at(self, size: Size) -> Preprocess:
        """Returns a copy with crop ``size`` (pixels) and ``resize`` scaled in proportion."""
        if min(sides(size)) < 1:
            raise UserError(f"size is {size_text(size)}: it must be at least 1")
        height, width = (
            max(round(resize * side / crop), 1)
            for resize, side, crop in zip(sides(self.resize), sides(size), self.size, strict=True)
        )
        return replace(self, resize=(height, width), crop=size)

    @property
    def size(self) -> tuple[int, int]:
        """Returns height and width of the pixels."""
        return sides(self.crop)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Returns the shape of the pixels: height, width and channels."""
        return (*self.size, self.channels)

    @property
    def mode(self) -> Mode:
        """Returns Pillow's mode of images with so many channels, for :func:`decode`."""
        return MODES[self.channels - 1]

    @property
    def least(self) -> tuple[int, int]:
        """Returns the least height and width of a source, for :func:`decode`."""
        height, width = sides(self.resize)
        return math.ceil(GAP * height), math.ceil(GAP * width)

    def __call__(self, image: Image.Image, *, gap: float | None = GAP) -> Pixels:
        """Returns ``image`` as uint8 pixels of shape (height, width, channels).

        Only the part of the source inside the crop is resampled, in one step.

        Args:
            image: upright, of any mode.
            gap: least ratio of the image's size to the target after it is first shrunk by a whole
                factor; None resamples from all pixels.
        """
        across, down = self.size[::-1]
        steps = self._steps(*image.size)
        width, left, right = _kept(image.width, across, steps[0])
        height, top, bottom = _kept(image.height, down, steps[1])
        resized = to_mode(image, self.mode).resize(
            (width, height),
            resample=_RESAMPLING[self.interpolation],
            box=(left, top, right, bottom),
            reducing_gap=gap,
        )
        if resized.size != (across, down):
            canvas = Image.new(self.mode, (across, down), self.fill)
            canvas.paste(resized, ((across - width) // 2, (down - height) // 2))
            resized = canvas
        return np.asarray(resized, dtype=np.uint8).reshape(self.shape)

    def _steps(self, width: int, height: int) -> tuple[float, float]:
        """Returns the horizontal and vertical scale, in source pixels per result pixel."""
        down, across = sides(self.resize)
        steps = width / across, height / down
        if self.crop_mode == "squash":
            return steps
        return ((min if self.crop_mode == "center" else max)(steps),) * 2


def _kept(length: int, crop: int, step: float) -> tuple[int, float, float]:
    """Returns the part of a side inside the crop: result pixels, source start, source end."""
    margin = (length - crop * step) / 2
    if margin < 0:  # the whole side is smaller than the crop
        return max(round(length / step), 1), 0, length
    return crop, margin, length - margin


def decode(
    source: bytes | Path,
    *,
    max_pixels: int = MAX_PIXELS,
    least: Size | None = None,
    truncated: Truncated = "refuse",
    mode: Mode = "RGB",
) -> Image.Image:
    """Returns the image in ``source`` (bytes or a file), upright, 8 bits per channel.

    EXIF rotation is applied, other metadata is ignored, transparency is composited over white
    unless ``mode`` has it, and of an animation the first frame is used. Only :data:`FORMATS` are
    accepted.

    Args:
        source: an encoded image.
        max_pixels: limit of its pixels.
        least: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides of the
            upright image keep this many pixels; libjpeg then scales its 8x8 blocks, which saves
            time and memory. If a side is not divisible, the last row or column is partly padding,
            which moves the centre by up to half a pixel. None decodes at full size; so do other
            formats.
        truncated: whether to accept a truncated JPEG, whose last rows are then grey or coarse: at
            most 32 rows, and at most 1/16 of the image.
        mode: Pillow's mode of the result.

    Raises:
        ImageError: ``source`` is not an image, is truncated, or cannot be read.
        UnsupportedImageError: a kind of image that is not accepted.
        TooManyPixelsError: more than ``max_pixels``, by its header: it is refused before it is
            decoded, as a few bytes can declare more pixels than fit into memory.
    """
    name = str(source) if isinstance(source, Path) else f"{len(source)} bytes"
    data = b""
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        data, turn = _stripped(data, max_pixels)
        try:
            image = _load(data, max_pixels, least, turn)
        except OSError:
            if not is_jpeg(data) or not is_cut_short(data):
                raise
            if reason := loss(data, accepted=truncated == "accept"):
                raise ImageError(f"a JPEG that is cut short: {reason}") from None
            image = _load(ended(data), max_pixels, least, turn)
        turn = max(turn, orientation_in(image.info))
        upright = to_mode(image, mode)
        return upright.transpose(_TURNS[turn]) if turn > 1 else upright
    except Exception as error:  # Pillow raises many types of exception on corrupt data
        raise _image_error(error, name, data, max_pixels) from error


def check_header(file: Path, *, max_pixels: int = MAX_PIXELS) -> None:
    """Checks the header of an image file as :func:`decode` does, without decoding its pixels.

    It never refuses a file that decodes.

    Raises:
        ImageError: the file cannot be opened, or its first bytes match none of :data:`FORMATS`.
        TooManyPixelsError: its header declares more than ``max_pixels``.
    """
    data = b""
    try:
        with file.open("rb") as source:
            data = source.read(_START)
            if not _is_accepted(data):  # before reading the rest, which may be large
                raise UnidentifiedImageError
            data += source.read()
        data, _ = _stripped(data, max_pixels)
        _open(data, max_pixels).close()
    except Exception as error:
        raise _image_error(error, str(file), data, max_pixels) from error


def _image_error(error: Exception, name: str, data: bytes, max_pixels: int) -> ImageError:
    """Returns the ImageError for an ``error`` raised while an image was opened or decoded."""
    match error:
        case ImageError():
            return type(error)(f"{name}: {error}")
        case UnidentifiedImageError():
            if reason := _unsupported(data):
                return UnsupportedImageError(f"{name}: {reason}")
            return ImageError(f"{name}: not a {', '.join(TYPES[:-1])} or {TYPES[-1]} image")
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return TooManyPixelsError(f"{name}: too many pixels, the limit is {max_pixels}")
        case OSError(strerror=str(reason)):  # the file cannot be read
            return ImageError(f"{name}: cannot be read ({reason})")
        case OSError() | SyntaxError() | ValueError():  # Pillow cannot parse its content
            return ImageError(f"{name}: cannot be read as an image ({first_line(error)})")
    return ImageError(f"{name}: cannot be read as an image ({type(error).__name__})")


def _is_accepted(start: bytes) -> bool:
    """Returns whether these first bytes match any of :data:`FORMATS`."""
    Image.init()
    tests = (Image.OPEN[name][1] for name in FORMATS)
    return any(test is None or test(start) for test in tests)


def _stripped(data: bytes, max_pixels: int) -> tuple[bytes, int]:
    """Returns an image file without its metadata, and its EXIF orientation (1..8).

    Raises:
        TooManyPixelsError: by its headers, even opening it would cost too much.
    """
    data, turn = without_metadata(data)
    if bomb := bomb_in_header(data, max_pixels):
        raise TooManyPixelsError(bomb)
    return data, turn


def _open(data: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """Opens an image file without loading its pixels.

    Raises:
        TooManyPixelsError: its header declares more than ``max_pixels``.
    """
    image = Image.open(PatientFile(data), formats=FORMATS)
    width, height = image.size
    if width * height > max_pixels:
        raise TooManyPixelsError(
            f"{width}x{height} is {width * height} pixels, the limit is {max_pixels}"
        )
    return image


def _load(data: bytes, max_pixels: int, least: Size | None, turn: int) -> Image.Image:
    """Returns the image in a file with its pixels loaded, not yet rotated or converted.

    ``least`` is for the upright image, to which ``turn``, an EXIF orientation, brings it.
    """
    with _open(data, max_pixels) as image:
        if bomb := bomb_in_body(image, data, max_pixels):
            raise TooManyPixelsError(bomb)
        if image.format == "PPM":
            return load_pnm(image, data)
        if image.format == "PNG":
            set_key_colour(image, bits=data[24])
        if least is not None:
            height, width = sides(least)
            image.draft(None, (height, width) if turn >= _SIDEWAYS else (width, height))
        image.load()
        return image


def _unsupported(data: bytes) -> str | None:
    """Returns why Pillow cannot open ``data``, for known kinds of image; None for others."""
    if is_tiff(data) and (samples := describe_samples(data)):
        return f"a TIFF with {samples}: save it with 8 or 16 bits"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS and "HEIF" not in FORMATS:
        return "a HEIC image, which needs pillow-heif: pip install '.[heic]'"
    return None


def image_of(pixels: Pixels) -> Image.Image:
    """Returns the image with uint8 ``pixels`` (height, width, channels)."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def encode_png(image: Image.Image) -> bytes:
    """Returns ``image`` as a PNG file, which :func:`decode` turns back into the same pixels."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
