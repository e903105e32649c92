"""Reads images from request bodies, within limits."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

from multipart import MultipartError
from starlette.requests import Request

from serving.bodies import ALLOWED, ENVELOPE, FIELD, TEXT, Form, read_json
from serving.errors import Refusal, too_large

FORM = b"multipart/form-data"
JSON = b"application/json"
ANY = "application/octet-stream"
_OF_BYTES = (ANY.encode(), b"binary/octet-stream")  # the second is used by S3

BATCH = 5  # limit of a batch's total size, in multiples of max_bytes
# Limit of the inflated size of gzipped JSON, and of messages of gRPC: base64 of an image compresses
# to about 3/4, and only a bomb or a uniform BMP to less than 1/20. Without it, 144 KB could take
# the memory of a whole batch.
_RATIO = 20  # limit of inflated to compressed size
_FREE = 1 << 20  # bytes allowed in addition
_PIECE = 1 << 20  # bytes inflated at a time
_MEMBERS = 100  # limit of gzip members: each costs as much time as kilobytes of data
_GZIP = 16 + zlib.MAX_WBITS  # tells zlib to expect gzip's header and checksum

Headers = dict[bytes, bytes]


class Content(NamedTuple):
    """The content of a request.

    Attributes:
        images: content of each file, as bytes or base64 text.
        top_k: unchecked ``top_k`` of a JSON body; None otherwise.
    """

    images: list[bytes | str]
    top_k: object = None


async def read_image(request: Request, max_bytes: int) -> Content:
    """Returns the image in a form, a JSON body or a raw body; its size is not checked yet.

    A body that is neither a form nor JSON by its content type is taken as an image. At most
    ``max_bytes``, or their base64, and :data:`ENVELOPE` are held in memory.

    Raises:
        Refusal: too many bytes, no image, a broken body, a content coding other than gzip, or a
            disconnected client.
    """
    headers = _headers(request)
    kind = _kind(headers)
    if kind == FORM:
        advice = "/predict_batch takes several"
        return await _read_form(request, headers, max_bytes, 1, advice)
    if kind == JSON:
        return await _read_json(request, headers, max_bytes, "image", max_images=1)
    return Content([await _read_all(request, headers, max_bytes, max_bytes)])


async def read_images(request: Request, max_bytes: int, max_images: int) -> Content:
    """Returns the images in a form or a JSON body; their sizes are not checked yet.

    At most :data:`BATCH` times ``max_bytes``, or their base64, and :data:`ENVELOPE` are held in
    memory.

    Raises:
        Refusal: as :func:`read_image`, another content type, or too many images.
    """
    headers = _headers(request)
    kind = _kind(headers)
    if kind == FORM:
        return await _read_form(request, headers, BATCH * max_bytes, max_images, "send fewer")
    if kind == JSON:
        return await _read_json(request, headers, BATCH * max_bytes, "images", max_images)
    raise Refusal(
        415,
        "unsupported_media_type",
        f"content type is {_shown(kind)}: send multipart/form-data with files {FIELD!r}, or "
        f"application/json with {ALLOWED['images']}",
    )


def advise(refusal: Refusal, request: Request) -> Refusal:
    """Returns ``refusal`` with advice on sending images if the content type is not an image's.

    curl -d, for example, sends a file as form data, often unintentionally.
    """
    kind = _kind(_headers(request))
    if (
        refusal.code not in ("empty", "not_an_image")
        or kind.startswith(b"image/")
        or kind in (FORM, JSON, *_OF_BYTES)
    ):
        return refusal
    ways = f"curl -F {FIELD}=@FILE, or --data-binary @FILE, or JSON as application/json"
    detail = f"{refusal.detail}; content type is {_shown(kind)}: send an image with {ways}"
    return Refusal(refusal.status, refusal.code, detail)


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Returns a body of at most ``max_bytes``, inflated.

    Raises:
        Refusal: as :func:`read_image`.
    """
    return await _read_all(request, _headers(request), max_bytes, max_bytes)


def check_size(data: bytes, max_bytes: int) -> None:
    """Raises Refusal if an upload is empty or too large."""
    if len(data) > max_bytes:
        raise too_large(max_bytes)
    if not data:
        raise Refusal(400, "empty", "the upload holds no bytes")


def _headers(request: Request) -> Headers:
    return dict(request.scope["headers"])  # Starlette searches the list on every access


def _kind(headers: Headers) -> bytes:
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower()


def _shown(kind: bytes) -> str:
    return repr(kind.decode("latin-1"))[:60]


async def _read_all(request: Request, headers: Headers, limit: int, max_bytes: int) -> bytes:
    return b"".join([chunk async for chunk in _chunks(request, headers, limit, max_bytes)])


async def _read_form(
    request: Request, headers: Headers, max_bytes: int, max_images: int, advice: str
) -> Content:
    try:
        form = Form(headers[b"content-type"].decode("latin-1"), max_images, advice)
        async for chunk in _chunks(request, headers, max_bytes + ENVELOPE, max_bytes):
            form.feed(chunk)
        images = form.images()
    except MultipartError as error:
        reason = error.args[0]  # some have all the bytes as further arguments
        raise Refusal(400, "bad_form", f"the multipart form is broken: {reason}") from None
    return Content(images)


async def _read_json(
    request: Request, headers: Headers, max_bytes: int, field: str, max_images: int
) -> Content:
    limit = int(TEXT * max_bytes) + ENVELOPE
    body = await _read_all(request, headers, limit, max_bytes)
    check_size(body, limit)
    texts, top_k = read_json(body, field, max_images)
    return Content([*texts], top_k)


def _chunks(request: Request, headers: Headers, limit: int, max_bytes: int) -> AsyncIterator[bytes]:
    """Returns an iterator over the body, which raises Refusal as soon as it exceeds ``limit``."""
    coding = headers.get(b"content-encoding", b"").strip().lower()
    if coding in (b"", b"identity"):
        return _received(request, headers, limit, max_bytes)
    if coding in (b"gzip", b"x-gzip"):
        return _gunzipped(request, headers, limit, max_bytes)
    raise Refusal(
        415,
        "unsupported_coding",
        f"content encoding is {_shown(coding)}: send gzip, or none",
        {"accept-encoding": "gzip"},
    )


async def _received(
    request: Request, headers: Headers, limit: int, max_bytes: int
) -> AsyncIterator[bytes]:
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit:
        raise too_large(max_bytes)
    size, more = 0, True
    while more:  # as Request.stream(), in half the time
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "incomplete", "the connection closed before the end")
        more = message.get("more_body", False)
        if chunk := message.get("body"):
            size += len(chunk)
            if size > limit:
                raise too_large(max_bytes)
            yield chunk


async def _gunzipped(
    request: Request, headers: Headers, limit: int, max_bytes: int
) -> AsyncIterator[bytes]:
    packed_limit = limit + limit // 1000 + ENVELOPE  # incompressible data grows
    gunzip, size, packed = Gunzip(), 0, 0
    is_json = _kind(headers) == JSON
    try:
        async for chunk in _received(request, headers, packed_limit, max_bytes):
            packed += len(chunk)
            for piece in gunzip.feed(chunk):
                size += len(piece)
                if size > limit:
                    raise too_large(max_bytes)
                if is_json:
                    check_ratio(size, packed, "the JSON", "send it without gzip, or a form")
                yield piece
                await asyncio.sleep(0)  # a chunk may inflate to a thousand times its size
        gunzip.close()
    except GzipError as error:
        raise Refusal(400, "bad_gzip", f"the gzip data is broken: {error}") from None


def check_ratio(size: int, packed: int, what: str, advice: str) -> None:
    """Raises Refusal if ``what`` inflates from ``packed`` bytes to ``size``, and that is a bomb."""
    if size > _RATIO * packed + _FREE:
        limit = f"{_RATIO} times its compressed size and {_FREE} bytes"
        raise Refusal(400, "bad_gzip", f"{what} inflates to more than {limit}: {advice}")


class GzipError(ValueError):
    """Data that is not gzip, broken, truncated or followed by other data."""


class Gunzip:
    """Inflates gzip data (RFC 1952) of one or several members.

    Raises:
        GzipError: from every method, for invalid data.
    """

    def __init__(self) -> None:
        self._member: zlib._Decompress | None = None
        self._members = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yields the inflated data of the next bytes, in pieces of up to 1 MiB.

        Data is inflated lazily, so that a caller can stop at a limit.
        """
        while chunk:
            if self._member is None:
                self._start()
            member = self._member
            assert member is not None
            try:
                piece = member.decompress(chunk, _PIECE)
            except zlib.error as error:
                reason = str(error).rpartition(": ")[2]
                raise GzipError(f"member {self._members}: {reason}") from None
            chunk = member.unconsumed_tail
            if member.eof:
                chunk, self._member = member.unused_data, None
            if piece:
                yield piece

    def close(self) -> None:
        """Checks, after the last bytes, that the data is complete."""
        if self._member is not None or not self._members:
            raise GzipError("it is cut off")

    def _start(self) -> None:
        self._members += 1
        if self._members > _MEMBERS:
            raise GzipError(f"more than {_MEMBERS} members")
        self._member = zlib.decompressobj(_GZIP)
