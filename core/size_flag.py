"""The type of command-line flags for the size of images."""

from __future__ import annotations

import sys
from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec

from core.image_size import Size, parse_size, size_text


def _given(text: str) -> Size:
    """Returns the size that ``text`` says, or ends the program as :func:`core.cli.run` does."""
    try:
        return parse_size(text)
    except ValueError as error:
        sys.exit(f"error: {error}")  # tyro would put a ValueError into its box of usage


SizeFlag = Annotated[
    Size | None,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="SIDE|HxW",
        instance_from_str=lambda texts: _given(texts[0]),
        is_instance=lambda value: value is None or isinstance(value, int | tuple),
        str_from_instance=lambda value: ["None" if value is None else size_text(value)],
    ),
]
