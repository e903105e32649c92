"""A request's body to the bytes of one image, and why one is refused."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

FIELD = "image"

_ENVELOPE = 64 * 1024  # what a form may add around the image: boundaries, headers, small fields


class Refusal(Exception):
    """An upload that gets an error answer: HTTP status, short code and one line of detail."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail


async def read_image(request: Request, max_bytes: int) -> bytes:
    """Returns the bytes of the one image in ``request``: a form's field, or the whole body.

    No more than ``max_bytes`` (and a form's envelope) is ever held.

    Raises:
        Refusal: another content type, too many bytes, no image, a broken form, a lost client.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "multipart/form-data":
            data = await _read_form(request, max_bytes)
        elif kind.startswith("image/") or kind == "application/octet-stream":
            chunks = [chunk async for chunk in _bounded(request, max_bytes, max_bytes)]
            data = b"".join(chunks)
        else:
            raise Refusal(
                415,
                "unsupported_media_type",
                f"content type is {kind!r}: send multipart/form-data with a field "
                f"{FIELD!r}, or the bytes as image/*",
            )
    except ClientDisconnect:
        raise Refusal(400, "incomplete", "the connection closed before the end") from None
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    if not data:
        raise Refusal(400, "empty", "the upload holds no bytes")
    return data


async def _read_form(request: Request, max_bytes: int) -> bytes:
    parser = MultiPartParser(
        request.headers,
        _bounded(request, max_bytes + _ENVELOPE, max_bytes),
        max_files=1,
        max_fields=16,
        max_part_size=_ENVELOPE,
    )
    parser.spool_max_size = max_bytes + _ENVELOPE  # stays in memory: the stream is bounded
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeError) as error:
        reason = error.message if isinstance(error, MultiPartException) else "bad encoding"
        raise Refusal(400, "bad_form", f"the multipart form is broken: {reason}") from None
    try:
        image = form.get(FIELD)
        if not isinstance(image, UploadFile):
            raise Refusal(400, "no_image", f"the form needs one file in a field {FIELD!r}")
        return await image.read()
    finally:
        await form.close()


async def _bounded(request: Request, limit: int, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """Yields the body's chunks, and refuses it as soon as it is known to exceed ``limit``."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(max_bytes)
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(max_bytes)
        yield chunk


def _too_large(max_bytes: int) -> Refusal:
    return Refusal(413, "too_large", f"the upload exceeds the limit of {max_bytes} bytes")
