"""Reads the size of a WebP image from its header (RFC 9649), which allocates nothing."""

from __future__ import annotations

_EXTENDED, _LOSSLESS, _LOSSY = b"VP8X", b"VP8L", b"VP8 "
_SIDE = 0x3FFF  # 14 bits of a side; in VP8L of one less


def is_webp(data: bytes) -> bool:
    """Returns whether ``data`` begins like a WebP file."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def canvas_size(data: bytes) -> tuple[int, int]:
    """Returns width and height of the canvas of a WebP file.

    Raises:
        OSError: the header is none that is known, or broken.
    """
    kind, head = data[12:16], data[20:30]
    if len(head) == 10 and kind == _EXTENDED:
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (4, 7))
    elif len(head) >= 5 and kind == _LOSSLESS:
        bits = int.from_bytes(head[1:5], "little")
        width, height = (bits & _SIDE) + 1, (bits >> 14 & _SIDE) + 1
    elif len(head) == 10 and kind == _LOSSY:
        width, height = (int.from_bytes(head[at : at + 2], "little") & _SIDE for at in (6, 8))
    else:
        raise OSError("its header is broken")
    return width, height
