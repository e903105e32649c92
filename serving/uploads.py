"""A request's body to the bytes of images, and why one is refused."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from multipart import MultipartError
from starlette.requests import Request

from serving.forms import FIELD, Form

TYPES = ("jpeg", "jpg", "pjpeg", "png", "webp", "gif", "bmp", "x-ms-bmp", "tiff", "*")
ANY = "application/octet-stream"

BATCH = 5  # times max_bytes: what all images of a batch may have together
_ENVELOPE = 64 * 1024  # what a form may add around the image: boundaries, headers, small fields

_OTHERS = (
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphevc", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypavif", "AVIF"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"8BPS", "PSD"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "SVG"),
)


class Refusal(Exception):
    """A request that gets an error answer: HTTP status, short code and one line of detail."""

    def __init__(
        self, status: int, code: str, detail: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers


async def read_image(request: Request, max_bytes: int) -> bytes:
    """Returns the bytes of the one image in ``request``: a form's field, or the whole body.

    No more than ``max_bytes`` (and a form's envelope) is ever held.

    Raises:
        Refusal: another content type, too many bytes, no image, a broken form, a lost client.
    """
    kind = _kind(request)
    if kind == "multipart/form-data":
        (data,) = await _read_form(request, max_bytes, max_images=1)
    elif kind == ANY or (kind.startswith("image/") and kind.removeprefix("image/") in TYPES):
        data = b"".join([chunk async for chunk in _chunks(request, max_bytes, max_bytes)])
    else:
        raise _unsupported(
            kind, f"send multipart/form-data with a field {FIELD!r}, or the bytes as image/*"
        )
    check_size(data, max_bytes)
    return data


async def read_images(request: Request, max_bytes: int, max_images: int) -> list[bytes]:
    """Returns the bytes of each file in the fields ``image`` of a form; :func:`check_size` is due.

    No more than :data:`BATCH` times ``max_bytes`` (and a form's envelope) is ever held.

    Raises:
        Refusal: as :func:`read_image`, or too many images.
    """
    kind = _kind(request)
    if kind != "multipart/form-data":
        raise _unsupported(kind, f"send multipart/form-data with fields {FIELD!r}")
    return await _read_form(request, BATCH * max_bytes, max_images)


def other_type(data: bytes) -> str | None:
    """Returns what ``data`` is by its first bytes, if people take it for an image and we do not."""
    for offset, magic, name in _OTHERS:
        if data[offset : offset + len(magic)] == magic:
            return name
    return None


def check_size(data: bytes, max_bytes: int) -> None:
    """Raises Refusal if an upload is empty or too large."""
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    if not data:
        raise Refusal(400, "empty", "the upload holds no bytes")


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _unsupported(kind: str, allowed: str) -> Refusal:
    return Refusal(415, "unsupported_media_type", f"content type is {kind[:80]!r}: {allowed}")


async def _read_form(request: Request, max_bytes: int, max_images: int) -> list[bytes]:
    try:
        form = Form(request.headers["content-type"], max_images)
        async for chunk in _chunks(request, max_bytes + _ENVELOPE, max_bytes):
            form.feed(chunk)
        images = form.images()
    except MultipartError as error:
        reason = error.args[0]  # of some, what follows are all the bytes
        raise Refusal(400, "bad_form", f"the multipart form is broken: {reason}") from None
    if not images:
        raise Refusal(400, "no_image", f"the form needs a file in a field {FIELD!r}")
    return images


async def _chunks(request: Request, limit: int, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """Yields the body as it comes, and refuses it as soon as it is known to exceed ``limit``."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(max_bytes)
    size, more = 0, True
    while more:  # what Request.stream() does, in half the time
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "incomplete", "the connection closed before the end")
        more = message.get("more_body", False)
        if chunk := message.get("body"):
            size += len(chunk)
            if size > limit:
                raise _too_large(max_bytes)
            yield chunk


def _too_large(max_bytes: int) -> Refusal:
    return Refusal(413, "too_large", f"the upload exceeds the limit of {max_bytes} bytes")
