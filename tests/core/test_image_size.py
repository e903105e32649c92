from __future__ import annotations

import pytest

from core.image_size import Size, in_full, parse_size, sides, size_text


@pytest.mark.parametrize(
    ("text", "size"), [("224", 224), ("192x256", (192, 256)), ("64x64", 64), ("1X9", (1, 9))]
)
def test_a_size_is_a_side_or_height_and_width(text: str, size: Size) -> None:
    assert parse_size(text) == size
    assert parse_size(size_text(size)) == size
    assert in_full(size) == "x".join(map(str, sides(size)))


@pytest.mark.parametrize(
    "text", ["", "0", "192x", "x192", "0x5", "5x0", "1x2x3", "-1", "2.5", "9" * 7]
)
def test_what_is_no_size_says_what_one_is(text: str) -> None:
    with pytest.raises(
        ValueError, match=f"'{text}' is no size in pixels: give a .*, each at least 1$"
    ):
        parse_size(text)
