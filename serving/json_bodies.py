"""A JSON body to the base64 text of its images, and how many labels it asks for."""

from __future__ import annotations

import codecs
import json
import reprlib
from typing import Any

TOP_K = "top_k"
_PATHS = {"image": "/predict", "images": "/predict_batch"}  # by what holds the images
_TEXT = '"<base64 or data URI>"'
ALLOWED = {"image": f'{{"image": {_TEXT}}}', "images": f'{{"images": [{_TEXT}, ...]}}'}
_COMMAS = 16  # beside one between two images, and one in each data URI: base64 has none

_KINDS = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}


class JsonError(ValueError):
    """A body that is no JSON, or other JSON than is taken."""


def read_json(body: bytes, field: str, max_images: int) -> tuple[list[str], object]:
    """Returns the text of each image in ``body``, and what it gives for ``top_k``, None if nothing.

    Args:
        body: an object with ``field``, and perhaps ``top_k``.
        field: ``image``, which holds one text, or ``images``, an array of them.
        max_images: most texts.

    Raises:
        JsonError: the message says what is wrong, and what is allowed.
    """
    try:
        # Each value but the first takes a comma, and up to twenty times the memory of its text.
        if body.count(b",") > 2 * max_images + _COMMAS:
            raise JsonError("it holds too many values")
        found = _parse(body)
        texts = _texts(found, field)
        if len(texts) > max_images:
            raise JsonError(f"it holds {len(texts)} images, and at most {max_images} are allowed")
    except JsonError as error:
        raise JsonError(f"{error}: send {ALLOWED[field]}") from None
    return texts, found.get(TOP_K)


def _parse(body: bytes) -> Any:
    try:
        return json.loads(
            body.removeprefix(codecs.BOM_UTF8).decode("ascii"),  # a byte for each character
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
        )
    except JsonError:
        raise
    except json.JSONDecodeError as error:
        raise JsonError(f"line {error.lineno} column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise JsonError(f"byte {error.start + 1} is not ASCII, as base64 is") from None
    except RecursionError:
        raise JsonError("it is nested too deep") from None
    except ValueError:  # more digits than Python turns into a number
        raise JsonError("a number is too long") from None


def _texts(found: Any, field: str) -> list[str]:
    if not isinstance(found, dict):
        raise JsonError(f"it is {_KINDS[type(found)]}")
    if _PATHS.keys() <= found.keys():
        raise JsonError("it holds both 'image' and 'images'")
    for name in found:
        if name not in (field, TOP_K):
            hint = f" ({_PATHS[name]} takes it)" if name in _PATHS else ""
            raise JsonError(f"unknown key {reprlib.repr(name)}{hint}")
    if field not in found:
        raise JsonError(f"it lacks the key {field!r}")
    value = found[field]
    texts = [value] if field == "image" else value
    if not isinstance(texts, list):
        raise JsonError(f"{field!r} is {_KINDS[type(value)]}")
    if not texts:
        raise JsonError(f"{field!r} is empty")
    for index, text in enumerate(texts):
        place = repr(field) if field == "image" else f"{field!r} at index {index}"
        if not isinstance(text, str):
            raise JsonError(f"{place} is {_KINDS[type(text)]}")
        if not text.isascii():  # and up to four bytes for each character
            raise JsonError(f"{place} holds more than ASCII, as base64 is")
    return texts


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise JsonError(f"the key {reprlib.repr(twice)} comes twice")
    return found


def _no_constant(name: str) -> None:
    raise JsonError(f"{name} is no JSON")
