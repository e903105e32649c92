"""Sizes of images, which are written 224 where they are square and 192x256 where they are not.

Height comes before width, as in the shape of an array, in torchvision and in timm.
"""

from __future__ import annotations

import re

Size = int | tuple[int, int]  # in pixels: the side of a square, or height and width


def sides(size: Size) -> tuple[int, int]:
    """Returns height and width."""
    return (size, size) if isinstance(size, int) else size


def size_of(height: int, width: int) -> Size:
    """Returns the size of an image: its side where it is square."""
    return height if height == width else (height, width)


def size_text(size: Size) -> str:
    """Returns ``224`` for a square, else such as ``192x256``, as :func:`parse_size` reads it."""
    return str(size) if isinstance(size, int) else in_full(size)


def in_full(size: Size) -> str:
    """Returns ``224x224``, or such as ``192x256``."""
    return "x".join(map(str, sides(size)))


def parse_size(text: str) -> Size:
    """Returns the size that ``text``, such as ``224`` or ``192x256``, says.

    Raises:
        ValueError: it says none.
    """
    if not (found := re.fullmatch(r"0*([1-9]\d{0,5})(?:[xX]0*([1-9]\d{0,5}))?", text, re.ASCII)):
        raise ValueError(
            f"{text!r} is no size in pixels: give a side such as 224, or HEIGHTxWIDTH such as "
            "192x256, each at least 1"
        )
    height = int(found[1])
    return size_of(height, int(found[2] or height))
