"""An upload to the pixels of one image, or to why there are none."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter

from core.image_types import decode_image
from core.preprocess import (
    ImageError,
    Pixels,
    Preprocess,
    TooManyPixelsError,
    UnsupportedImageError,
)
from serving.base64_text import decode_base64
from serving.settings import Settings
from serving.uploads import Refusal, check_size


@dataclass(frozen=True, slots=True)
class Upload:
    """One image, how many labels are asked for, and since when it waits.

    Attributes:
        data: the bytes of its file, or base64 of them.
    """

    data: bytes | str
    top_k: int
    queued: float = field(default_factory=perf_counter)


@dataclass(slots=True)
class Decoded:
    """An image on its way: seconds of each stage, and what came of it."""

    upload: Upload
    pixels: Pixels | None = None
    refusal: Refusal | None = None
    decode: float = 0.0
    resize: float = 0.0


def read(upload: Upload, settings: Settings, preprocess: Preprocess) -> Decoded:
    """Returns the image of ``upload``, or its refusal; never raises for what a client sent."""
    image = Decoded(upload)
    started = perf_counter()
    try:
        data = _file(upload.data, settings.max_bytes)
        decoded = decode_image(
            data,
            max_pixels=settings.max_pixels,
            shorter=preprocess.shorter,
            truncated=settings.truncated,
        )
    except Refusal as refusal:
        image.refusal = refusal
    except TooManyPixelsError as error:
        image.refusal = Refusal(413, "too_many_pixels", str(error))
    except UnsupportedImageError as error:
        image.refusal = Refusal(415, "unsupported_image", str(error))
    except ImageError as error:
        image.refusal = Refusal(400, "not_an_image", str(error))
    else:
        between = perf_counter()
        image.decode = between - started
        image.pixels = preprocess(decoded)
        image.resize = perf_counter() - between
    return image


def _file(data: bytes | str, max_bytes: int) -> bytes:
    """Returns the bytes of an image's file; raises Refusal if they cannot be had."""
    file = decode_base64(data, max_bytes) if isinstance(data, str) else data
    check_size(file, max_bytes)
    return file
