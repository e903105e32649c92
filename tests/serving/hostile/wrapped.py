"""Images as text in JSON, and bodies packed with gzip: sound, spoiled, or far too large."""

from __future__ import annotations

import base64
import gzip
import json
from functools import cache
from random import Random
from typing import Any

from samples import samples
from spoiling import SPOILS, spoil

JSON = "application/json"
GZIP = "gzip"

Wrapped = tuple[str, str, bytes]  # path, content type, body


def json_upload(dice: Random) -> Wrapped:
    """Returns one to five spoiled images in JSON, whose text, or all of which, may be spoiled."""
    images = [spoil(dice.choice(list(samples().values())), dice) for _ in range(5)]
    texts = [_text(image, dice) for image in images[: dice.choice([1, 1, 5])]]
    several = len(texts) > 1 or dice.random() < 0.1
    content: dict[str, Any] = {"images": texts} if several else {"image": texts[0]}
    if dice.random() < 0.2:
        content["top_k"] = dice.choice([3, 3.0, None, 0, -1, 4, "3", [], {}, 1e300, 10**100, True])
    if dice.random() < 0.1:
        content[dice.choice(["image", "images", "instances", "\0", "\ud800"])] = dice.choice(
            [texts, texts[0], None, [], [[1, 2], [3]], ""]
        )
    body = json.dumps(content).encode()
    if dice.random() < 0.2:
        start = dice.choice([20, len(body)])
        body = dice.choice(SPOILS)(body[:start], dice) + body[start:]
    return "/predict_batch" if several else "/predict", JSON, body


def _text(image: bytes, dice: Random) -> str:
    encode = dice.choice([base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes])
    text = encode(image).decode()
    if dice.random() < 0.3:
        text = f"data:image/png;base64,{text}"
    if dice.random() < 0.3:
        at = dice.randrange(len(text) + 1)
        text = (
            text[:at] + dice.choice(["", "=", " ", "\0", "%2B", "\u20ac", "A" * 5]) + text[at + 1 :]
        )
    return text


def pack(body: bytes, dice: Random) -> tuple[str, bytes]:
    """Returns a content coding, mostly gzip, and ``body`` in it; at times broken."""
    way = dice.random()
    if way < 0.5:
        return GZIP, gzip.compress(body, dice.randint(0, 9))
    if way < 0.6:  # members
        at = dice.randrange(len(body) + 1)
        return GZIP, gzip.compress(body[:at]) + gzip.compress(body[at:])
    if way < 0.8:
        return GZIP, dice.choice(SPOILS)(gzip.compress(body), dice)
    return dice.choice(["br", "deflate", "zstd", "gzip, gzip", GZIP, "identity"]), body


@cache
def packed_bombs() -> dict[str, tuple[int, str, str, bytes]]:
    """Returns by name the status that each must get, content type, coding and body."""
    count, zeros = 4_000_000, bytes(50_000_000)
    packed = gzip.compress(zeros)
    form = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    packs = {
        "gzip, zeros": (413, "image/png", packed),
        "gzip, zeros as JSON": (400, JSON, packed),
        "gzip, zeros in a form": (
            413,
            "multipart/form-data; boundary=b",
            gzip.compress(form + zeros),
        ),
        "gzip, twice": (415, "image/png", gzip.compress(packed)),
        "gzip, members": (400, "image/png", gzip.compress(b"") * 300_000),
    }
    texts = {
        "json, arrays": b'{"image": [' + b"[]," * count + b"[]]}",
        "json, objects": b"{" + b'"a":{},' * (count // 3) + b'"a":1}',
        "json, deep": b"[" * count,
        "json, deep objects": b'{"image":' * (count // 4),
        "json, deep in vain": b'{"image": "A", "top_k": ' + b"[" * 900,
        "json, a number": b'{"top_k": ' + b"9" * count + b"}",
        "json, a fraction": b'{"image": "A", "top_k": 0.' + b"9" * count + b"e}",
        "json, wide text": b'{"image": "\\ud83d\\ude00' + b"A" * count + b'"}',
        "json, no base64": b'{"image": "' + b"?" * count + b'"}',
        "json, line breaks": b'{"image": "' + b"\\n" * count + b'"}',
    }
    return {
        **{name: (status, kind, GZIP, body) for name, (status, kind, body) in packs.items()},
        **{name: (400, JSON, "", body) for name, body in texts.items()},
    }
