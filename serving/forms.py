"""A multipart form, chunk by chunk, to the bytes of its images."""

from __future__ import annotations

import re
import reprlib

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser

FIELD = "image"
_OTHERS = 16  # fields that a form may hold beside its images
_NAMED = 5  # of them, in an error

# Quoted, or all up to the next parameter: many a client forgets the quotes that "=" asks for.
_BOUNDARY = re.compile(r';\s*boundary\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))', re.IGNORECASE)
# With another character set (RFC 5987), which browsers never send but other clients do.
_EXTENDED_FILENAME = re.compile(r";\s*filename\*\s*=", re.IGNORECASE)
_PLAIN = ("", "binary", "8bit", "7bit")  # of Content-Transfer-Encoding: the bytes are the file's


class Form:
    """The files in the fields ``image`` of a form; all else is skipped.

    Args:
        content_type: of the request, with its boundary.
        max_images: most files.
        advice: what to do with more of them, for the error.

    Raises:
        MultipartError: here and in every method, the form is broken, cut off or
            larger than allowed.
    """

    def __init__(self, content_type: str, max_images: int, advice: str) -> None:
        self._parser = PushMultipartParser(
            _boundary(content_type), max_segment_count=max_images + _OTHERS
        )
        self._max_images = max_images
        self._advice = advice
        self._images: list[list[bytes]] = []
        self._in_base64: set[int] = set()  # which of them
        self._others: dict[str, None] = {}  # in words; ordered
        self._wanted = False  # what comes next

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes, of any number but zero."""
        for event in self._parser.parse(chunk):
            if isinstance(event, MultipartSegment):
                self._wanted = self._start(event)
            elif event and self._wanted:
                self._images[-1].append(event)

    def images(self) -> list[bytes | str]:
        """Returns the bytes of each file, in order, after the last bytes of the form.

        Of one that comes in base64, the text.
        """
        self._parser.close()
        images: list[bytes | str] = [b"".join(parts) for parts in self._images]
        for index in self._in_base64:
            text = images[index]
            assert isinstance(text, bytes)
            images[index] = text.decode("latin-1")
        return images

    def describe_others(self) -> str:
        """Returns in words what the form holds beside images, in part if that is much."""
        names = list(self._others)
        if len(names) > _NAMED:
            names[_NAMED:] = ["more"]
        return ", ".join(names) or "nothing"

    def _start(self, segment: MultipartSegment) -> bool:
        """Returns whether ``segment`` is an image's file."""
        is_file = _is_file(segment)
        if segment.name != FIELD or not is_file:
            name = reprlib.repr(segment.name)
            self._others[f"the {'file' if is_file else 'text'} {name}"] = None
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
