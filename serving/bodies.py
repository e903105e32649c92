"""Extracts images from request bodies: multipart forms, JSON, base64 text."""

from __future__ import annotations

import codecs
import re
import reprlib
import string
from binascii import a2b_base64
from typing import Any

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser
from pydantic_core import from_json

from serving.errors import Refusal, too_large

FIELD = "image"
TOP_K = "top_k"
ENVELOPE = 64 * 1024  # bytes a body may have besides its images: boundaries, headers, small fields
TEXT = 1.5  # limit of base64's size factor: 4/3, more with line breaks and escaped slashes

# Forms --------------------------------------------------------------------------------------------

_OTHERS = 16  # fields that a form may have besides its images
_NAMED = 5  # most of them named in an error

# Quoted, or up to the next parameter: many clients omit the quotes that "=" requires.
_BOUNDARY = re.compile(r';\s*boundary\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))', re.IGNORECASE)
# With another character set (RFC 5987), which browsers never send but other clients do.
_EXTENDED_FILENAME = re.compile(r";\s*filename\*\s*=", re.IGNORECASE)
_PLAIN = ("", "binary", "8bit", "7bit")  # Content-Transfer-Encodings that leave the bytes unchanged


class Form:
    """The files in the fields ``image`` of a form, chunk by chunk; other text fields are skipped.

    Args:
        content_type: content type of the request, with its boundary.
        max_images: most files.
        advice: for the error message: what to do with more files.

    Raises:
        MultipartError: here and in every method: the form is broken, truncated or larger than
            allowed.
    """

    def __init__(self, content_type: str, max_images: int, advice: str) -> None:
        self._parser = PushMultipartParser(
            _boundary(content_type), max_segment_count=max_images + _OTHERS
        )
        self._max_images = max_images
        self._advice = advice
        self._images: list[list[bytes]] = []
        self._in_base64: set[int] = set()  # which of them
        self._others: dict[tuple[str, str], None] = {}  # "file" or "text", and name; ordered
        self._wanted = False  # what comes next

    def feed(self, chunk: bytes) -> None:
        """Parses the next bytes; ``chunk`` must not be empty."""
        for event in self._parser.parse(chunk):
            if isinstance(event, MultipartSegment):
                self._wanted = self._start(event)
            elif event and self._wanted:
                self._images[-1].append(event)

    def images(self) -> list[bytes | str]:
        """Returns the bytes of each file, or its base64 text, in order; call it at the end.

        Raises:
            Refusal: there is no image, or there are other parts, which would be ignored.
        """
        self._parser.close()
        if not self._images:
            detail = f"the form needs a file {FIELD!r}; it holds {self._describe_others()}"
            raise Refusal(400, "no_image", detail)
        for kind, name in self._others:
            if kind == "file":
                detail = f"unknown file {name} in the form: name each image {FIELD!r}"
                raise Refusal(400, "bad_form", detail)
        if ("text", repr(TOP_K)) in self._others:
            detail = f"{TOP_K} is a field of the form: send it in the query, ?{TOP_K}=3"
            raise Refusal(400, "bad_form", detail)
        images: list[bytes | str] = [b"".join(parts) for parts in self._images]
        for index in self._in_base64:
            text = images[index]
            assert isinstance(text, bytes)
            images[index] = text.decode("latin-1")
        return images

    def _describe_others(self) -> str:
        """Returns a text that names the first parts of the form that are not images."""
        found = [f"the {kind} {name}" for kind, name in self._others]
        if len(found) > _NAMED:
            found[_NAMED:] = ["more"]
        return ", ".join(found) or "nothing"

    def _start(self, segment: MultipartSegment) -> bool:
        """Returns whether ``segment`` is the file of an image."""
        is_file = _is_file(segment)
        if segment.name != FIELD or not is_file:
            self._others["file" if is_file else "text", reprlib.repr(segment.name)] = None
            return False
        self._images.append([])
        if len(self._images) > self._max_images:
            raise ParserLimitReached(f"more images than {self._max_images}: {self._advice}")
        coding = segment.header("Content-Transfer-Encoding", "").strip().lower()
        if coding == "base64":
            self._in_base64.add(len(self._images) - 1)
        elif coding not in _PLAIN:
            raise MultipartError(
                f"Content-Transfer-Encoding is {reprlib.repr(coding)}: it must be base64 or binary"
            )
        return True


def _boundary(content_type: str) -> bytes:
    found = _BOUNDARY.search(content_type)
    if found is None:
        return b""
    quoted, bare = found.groups()
    text = bare.strip() if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    return text.encode("latin-1")  # as it came


def _is_file(segment: MultipartSegment) -> bool:
    if segment.filename is not None:
        return True
    if segment.content_type and not segment.content_type.startswith("text/"):
        return True
    return bool(_EXTENDED_FILENAME.search(segment.header("Content-Disposition")))


# JSON ---------------------------------------------------------------------------------------------

_PATHS = {"image": "/predict", "images": "/predict_batch"}  # by what holds the images
_TEXT = '"<base64 or data URI>"'
ALLOWED = {"image": f'{{"image": {_TEXT}}}', "images": f'{{"images": [{_TEXT}, ...]}}'}
_COMMAS = 16  # besides those between images and in data URIs: base64 has none

_KINDS = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}


class _JsonError(ValueError):
    """A body that is not JSON, or not of the expected structure."""


def read_json(body: bytes, field: str, max_images: int) -> tuple[list[str], object]:
    """Returns the base64 text of each image in ``body``, and its ``top_k``, None if absent.

    Args:
        body: a JSON object with ``field``, and optionally ``top_k``.
        field: ``image``, a string, or ``images``, an array of strings.
        max_images: most images.

    Raises:
        Refusal: it is anything else; the detail says what is wrong and what is allowed.
    """
    try:
        # Each further value needs a comma, and up to twenty times the memory of its text.
        if _occurs_more(body, b",", 2 * max_images + _COMMAS):
            raise _JsonError("it holds too many values")
        found = _parse(body)
        texts = _texts(found, field)
        if len(texts) > max_images:
            raise _JsonError(f"it holds {len(texts)} images, and at most {max_images} are allowed")
        for name in found:  # parsers silently keep the last of duplicate keys
            if _occurs_more(body, b'"%b"' % name.encode(), 1 + texts.count(name)):
                raise _JsonError(f"the key {name!r} comes twice")
    except _JsonError as error:
        detail = f"the JSON is not as expected: {error}: send {ALLOWED[field]}"
        raise Refusal(400, "bad_json", detail) from None
    return texts, found.get(TOP_K)


def _occurs_more(body: bytes, part: bytes, times: int) -> bool:
    """Returns whether ``part`` occurs more than ``times`` times; 20 times faster than count()."""
    place = -1
    for _ in range(times + 1):
        place = body.find(part, place + 1)
        if place < 0:
            return False
    return True


def _parse(body: bytes) -> Any:
    try:
        body = body.removeprefix(codecs.BOM_UTF8)
        if not body.isascii():  # other text needs up to four bytes per character
            body.decode("ascii")
        # This blocks the event loop: 2 ms for an image of 10 MB, 26 ms with the standard library.
        return from_json(body, allow_inf_nan=False)
    except UnicodeDecodeError as error:
        raise _JsonError(f"byte {error.start + 1} is not ASCII, as base64 is") from None
    except ValueError as error:
        raise _JsonError(str(error)) from None


def _texts(found: Any, field: str) -> list[str]:
    if not isinstance(found, dict):
        raise _JsonError(f"it is {_KINDS[type(found)]}")
    if _PATHS.keys() <= found.keys():
        raise _JsonError("it holds both 'image' and 'images'")
    for name in found:
        if name not in (field, TOP_K):
            hint = f" ({_PATHS[name]} takes it)" if name in _PATHS else ""
            raise _JsonError(f"unknown key {reprlib.repr(name)}{hint}")
    if field not in found:
        raise _JsonError(f"it lacks the key {field!r}")
    value = found[field]
    texts = [value] if field == "image" else value
    if not isinstance(texts, list):
        raise _JsonError(f"{field!r} is {_KINDS[type(value)]}")
    if not texts:
        raise _JsonError(f"{field!r} is empty")
    for index, text in enumerate(texts):
        place = repr(field) if field == "image" else f"{field!r} at index {index}"
        if not isinstance(text, str):
            raise _JsonError(f"{place} is {_KINDS[type(text)]}")
        if not text.isascii():  # by escapes
            raise _JsonError(f"{place} holds more than ASCII, as base64 is")
    return texts


# Base64 -------------------------------------------------------------------------------------------

_STANDARD = bytes.maketrans(b"-_", b"+/")  # from the alphabet for URLs (RFC 4648, section 5)
_BREAKS = b"\r\n\t"
_ALLOWED = (string.ascii_letters + string.digits + "+/=").encode()
_STEP = 1 << 20  # characters at once: no other thread runs meanwhile


def decode_base64(text: str, max_bytes: int) -> bytes:
    """Decodes ``text``: base64, or a data URI with base64.

    Both alphabets are accepted, with or without padding, and with line breaks. The media type of a
    data URI is ignored. No more than ``max_bytes`` are ever decoded.

    Raises:
        Refusal: it is anything else, or decodes to too many bytes.
    """
    if len(text) > TEXT * max_bytes + ENVELOPE:  # before it is copied
        raise too_large(max_bytes)
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise _bad("a data URI must say ;base64 before its comma")
    elif text[:8].lower().startswith(("http://", "https://")):
        raise _bad("it is an address, and nothing is fetched: send what it holds")
    text = text.strip()
    packed = text.encode("ascii", "replace").translate(_STANDARD, _BREAKS)
    if foreign := packed.translate(None, _ALLOWED):
        place = text.encode("ascii", "replace").index(foreign[:1])
        hint = " (a '+' that was taken for one?)" if foreign[:1] == b" " else ""
        raise _bad(f"character {place + 1} is {text[place]!r}{hint}")
    bare = packed.rstrip(b"=")
    missing = -len(bare) % 4
    if missing == 3:
        raise _bad("it is cut off: a single character is left over")
    if b"=" in bare or len(packed) - len(bare) not in (0, missing):
        raise _bad("its padding is wrong: it is one '=' or two, at the end")
    if len(bare) * 3 // 4 > max_bytes:
        raise too_large(max_bytes)
    bare += b"=" * missing
    return b"".join(
        [a2b_base64(bare[start : start + _STEP]) for start in range(0, len(bare), _STEP)]
    )


def _bad(reason: str) -> Refusal:
    return Refusal(400, "bad_base64", f"the image is not base64: {reason}")
