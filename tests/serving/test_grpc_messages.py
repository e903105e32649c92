"""Messages of gRPC: their numbers, and what is refused before it is read."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from serving.errors import Refusal
from serving.grpc_messages import message_classes, parse


def test_messages_have_the_numbers_of_the_protocol() -> None:
    request = message_classes()["ModelInferRequest"](
        model_name="m",
        id="i",
        inputs=[
            {"name": "n", "datatype": "UINT8", "shape": [1], "contents": {"uint_contents": [5]}}
        ],
        outputs=[{"name": "o", "parameters": {"classification": {"int64_param": 2}}}],
        raw_input_contents=[b"r"],
    )
    assert request.SerializeToString() == bytes.fromhex(
        "0a016d1a01692a120a016e12055549"
        "4e54381a01012a0322010532190a016f12140a0e636c617373696669636174696f6e12021002"
        "3a0172"
    )


def test_a_message_of_many_fields_is_refused_before_it_is_read() -> None:
    kind = message_classes()["ModelInferRequest"]
    entry = b"\x22\x06\x0a\x00\x12\x02\x10\x01"  # a parameter
    for body in (b"\x2a\x00" * 3000, entry * 1000, b"\x3a\x00" * 3000, b"\x10\x01" * 3000):
        with pytest.raises(Refusal, match="2000 fields"):
            parse(kind, body)
    list_of = b"\x1a" + _sized(bytes(2_500_000))
    tensor = b"\x2a" + _sized(b"\x2a" + _sized(list_of))
    parse(kind, tensor)
    # Lists of one field are read as one, and so are contents that come twice.
    for body in (tensor * 2, b"\x2a" + _sized(b"\x2a" + _sized(list_of * 2))):
        with pytest.raises(Refusal, match="too many numbers"):
            parse(kind, body)


def _sized(data: bytes) -> bytes:
    size, count = b"", len(data)
    while count > 127:
        size, count = size + bytes([count & 127 | 128]), count >> 7
    return size + bytes([count]) + data


def test_spoiled_messages_are_read_or_refused() -> None:
    kind = message_classes()["ModelInferRequest"]
    whole = kind(
        model_name="m",
        parameters={"a": {"bool_param": True}},
        inputs=[{"name": "image", "shape": [1], "contents": {"bytes_contents": [b"abc"]}}],
        outputs=[{"name": "scores", "parameters": {"classification": {"int64_param": 2}}}],
    ).SerializeToString()
    dice, outcomes = random.Random(0), Counter[str]()
    for _ in range(3000):
        body = bytearray(whole)
        for _ in range(dice.randrange(1, 4)):
            body[dice.randrange(len(body))] = dice.randrange(256)
        try:
            parse(kind, bytes(body[: dice.choice([len(body), dice.randrange(len(body))])]))
            outcomes["read"] += 1
        except Refusal as refusal:
            outcomes[refusal.code] += 1
    assert outcomes.keys() == {"read", "bad_message"}
    assert min(outcomes.values()) > 100
