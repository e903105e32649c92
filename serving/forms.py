"""A multipart form, chunk by chunk, to the bytes of its images."""

from __future__ import annotations

from multipart import (
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

FIELD = "image"
_OTHERS = 16  # fields that a form may hold beside its images


class Form:
    """The files in the fields ``image`` of a form; all else is skipped.

    Args:
        content_type: of the request, with its boundary.
        max_images: most files.

    Raises:
        MultipartError: here and in every method, the form is broken, cut off or
            larger than allowed.
    """

    def __init__(self, content_type: str, max_images: int) -> None:
        _, options = parse_options_header(content_type)
        boundary = options.get("boundary", "")
        self._parser = PushMultipartParser(boundary, max_segment_count=max_images + _OTHERS)
        self._max_images = max_images
        self._images: list[list[bytes]] = []
        self._wanted = False  # what comes next

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes, of any number but zero."""
        for event in self._parser.parse(chunk):
            if isinstance(event, MultipartSegment):
                self._wanted = event.name == FIELD and event.filename is not None
                if self._wanted:
                    self._images.append([])
                    if len(self._images) > self._max_images:
                        raise ParserLimitReached(f"more than {self._max_images} images")
            elif event and self._wanted:
                self._images[-1].append(event)

    def images(self) -> list[bytes]:
        """Returns the bytes of each file, in order, after the last bytes of the form."""
        self._parser.close()
        return [b"".join(parts) for parts in self._images]
