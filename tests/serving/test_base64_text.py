from __future__ import annotations

import base64
import random

import pytest

from serving.bodies import decode_base64
from serving.errors import Refusal

DATA = random.Random(0).randbytes(3_000_001)  # several steps, and an end that wants padding
TEXT = base64.b64encode(DATA).decode()


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.rstrip("="),
        base64.urlsafe_b64encode(DATA).decode(),
        base64.encodebytes(DATA).decode(),
        base64.encodebytes(DATA).decode().replace("\n", "\r\n\t"),
        f" \n{TEXT}\n",
        f"data:image/png;base64,{TEXT}",
        f"Data:;Base64,{TEXT}",
        f"data:image/jpeg;name=a.jpg;base64,\n{TEXT}",
    ],
)
def test_text_as_programs_write_it(text: str) -> None:
    assert decode_base64(text, len(DATA)) == DATA


@pytest.mark.parametrize("size", range(8))
def test_every_end_is_decoded_with_padding_and_without(size: int) -> None:
    data = DATA[:size]
    padded = base64.b64encode(data).decode()
    assert decode_base64(padded, 10) == decode_base64(padded.rstrip("="), 10) == data


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("AA AA", "character 3 is ' ' (a '+'"),
        ("AA!A", "character 3 is '!'"),
        ("AAAA\u20ac", "character 5 is '\u20ac'"),
        ("AA\udc80A", "character 3 is"),
        ("AAA\0", "character 4 is"),
        ("AAAAA", "cut off"),
        ("A", "cut off"),
        ("=", "padding"),
        ("A===", "cut off"),
        ("AA=", "padding"),
        ("AAA==", "padding"),
        ("AAAA=", "padding"),
        ("AAAA====", "padding"),
        ("AA==AAAA", "padding"),
        ("data:image/png,AAAA", ";base64"),
        ("data:image/png", ";base64"),
        ("data:image/png;base64;charset=x,AAAA", ";base64"),
        ("data:image/png;base64,AAA%3D", "character 4 is '%'"),
        ("https://example.org/a.png", "an address"),
        ("HTTP://example.org", "an address"),
        ("file:///a.png", "character 5 is ':'"),
    ],
)
def test_anything_else_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(Refusal) as caught:
        decode_base64(text, 100)
    assert (caught.value.status, caught.value.code) == (400, "bad_base64")
    assert reason in caught.value.detail
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize("more", [0, 1, 2, 3])
def test_the_limit_is_of_the_bytes(more: int) -> None:
    data = DATA[: 100 + more]
    text = base64.encodebytes(data).decode()
    if not more:
        assert decode_base64(text, 100) == data
        return
    with pytest.raises(Refusal) as caught:
        decode_base64(text, 100)
    assert caught.value.status == 413


def test_a_text_beyond_what_any_image_takes_is_not_looked_at() -> None:
    with pytest.raises(Refusal) as caught:
        decode_base64("?" * 100_000, 100)
    assert (caught.value.status, caught.value.code) == (413, "too_large")
