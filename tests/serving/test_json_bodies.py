from __future__ import annotations

import json
import re
import tracemalloc

import pytest

from serving.bodies import read_json
from serving.errors import Refusal


def test_what_is_asked_for_is_read() -> None:
    assert read_json(b'{"image": "AA"}', "image", 1) == (["AA"], None)
    assert read_json(b'{"top_k": 3, "images": ["AA", "BB"]}', "images", 2) == (["AA", "BB"], 3)
    assert read_json(b'\xef\xbb\xbf {"image": "\\u0041\\/"}', "image", 1) == (["A/"], None)
    named = b'{"images": ["images", "data:;base64,AA"]}'  # six characters of base64
    assert read_json(named, "images", 2) == (["images", "data:;base64,AA"], None)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "line 1 column 0"),
        (b'{"image": "A', "line 1 column 12"),
        (b"'image'", "line 1 column 1"),
        (b'{"image": "A"} {}', "line 1 column 16"),
        (b"[]", "an array"),
        (b'"A"', "a string"),
        (b"null", "null"),
        (b"{}", "'image'"),
        (b'{"image": 1}', r"'image' .*\bnumber\b"),
        (b'{"image": 1.5}', r"'image' .*\bnumber\b"),
        (b'{"image": true}', r"'image' .*\bboolean\b"),
        (b'{"image": null}', r"'image' .*\bnull\b"),
        (b'{"image": ["A"]}', r"'image' .*\barray\b"),
        (b'{"image": {"b64": "A"}}', r"'image' .*\bobject\b"),
        (b'{"image": "A", "images": ["A"]}', "'image' .*'images'"),
        (b'{"images": ["A"]}', "'images' .*/predict_batch"),
        (b'{"image": "A", "name": "x"}', "'name'"),
        (b'{"Image": "A"}', "'Image'"),
        (b'{"image": "A", "image": "B"}', "'image' .*twice"),
        (b'{"image": "A", "top_k": 1, "top_k": 2}', "'top_k' .*twice"),
        (b'{"image": {"a": 1}, "image": "data:image/png;base64,A"}', "'image' .*twice"),
        (b'{"image": "A", "top_k": NaN}', "line 1 column 25"),
        (b'{"image": "A", "top_k": -Infinity}', "line 1 column 26"),
        (b'{"image": "A", "top_k": ' + b"1" * 5000 + b"}", "range"),
        (b"[" * 100_000, "recursion"),
        (b'{"image": ' * 50_000, "recursion"),
        (b'{"image": "\xff"}', r"\b12 .*ASCII"),
        ('{"image": "é"}'.encode(), r"\b12 .*ASCII"),
        (b'{"image": "\\ud83d\\ude00"}', "ASCII"),
        ('{"image": "A"}'.encode("utf-16"), r"\b1 .*ASCII"),
        (b'{"image": [[1, 2, 3], ' + b"[1, 2, 3], " * 9 + b"[]]}", "values"),
        (b'{"unknown' + b"x" * 1000 + b'": 1}', "'unknown"),
    ],
)
def test_anything_else_is_refused_with_its_reason(body: bytes, reason: str) -> None:
    with pytest.raises(Refusal) as caught:
        read_json(body, "image", 1)
    message = str(caught.value)
    assert re.search(reason, message)
    assert message.endswith('send {"image": "<base64 or data URI>"}')
    assert "\n" not in message
    assert len(message) < 200


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"images": "A"}', r"'images' .*\bstring\b"),
        (b'{"images": []}', r"'images' .*\bempty\b"),
        (b'{"images": ["A", 1]}', r"'images' .*\b1 .*\bnumber\b"),
        (b'{"images": ["A", "B", "C"]}', r"\b3 images\b.*\b2\b"),
        (b'{"image": "A"}', r"'image' .*/predict "),
    ],
)
def test_a_batch_is_refused_with_its_reason(body: bytes, reason: str) -> None:
    with pytest.raises(Refusal, match=reason):
        read_json(body, "images", 2)


@pytest.mark.parametrize("filling", [b"[],", b"{},", b'{"a":1},', b'"\\ud83d\\ude00",'])
def test_small_values_do_not_fill_the_memory(filling: bytes) -> None:
    body = b'{"images": [' + filling * (1_000_000 // len(filling)) + b'"A"]}'
    tracemalloc.start()
    try:
        with pytest.raises(Refusal):
            read_json(body, "images", 32)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held < len(body)


def test_large_images_are_held_once() -> None:
    body = json.dumps({"image": "A" * 1_000_000}).encode()
    tracemalloc.start()
    try:
        read_json(body, "image", 1)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held < 1.1 * len(body)  # beside the body itself
