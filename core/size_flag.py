"""The type of command-line flags for the size of images."""

from __future__ import annotations

from typing import Annotated

from tyro.constructors import PrimitiveConstructorSpec

from core.image_size import Size, parse_size, size_text

SizeFlag = Annotated[
    Size | None,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="SIDE|HxW",
        instance_from_str=lambda texts: parse_size(texts[0]),
        is_instance=lambda value: value is None or isinstance(value, int | tuple),
        str_from_instance=lambda value: ["None" if value is None else size_text(value)],
    ),
]
