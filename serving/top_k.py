"""Reads how many labels a request asks for, in its query or its JSON body."""

from __future__ import annotations

import reprlib

from starlette.requests import Request

from serving.json_bodies import TOP_K
from serving.uploads import Refusal


def top_k_of_query(request: Request, labels: int) -> int | None:
    """Returns the number in the query; None if there is none.

    Raises:
        Refusal: it is no whole number in 1..``labels``.
    """
    # Parsing what is not there would take longer than asking.
    text = request.query_params.get(TOP_K) if request.scope["query_string"] else None
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise _refusal(text, labels)
    return _checked(int(text), labels)


def choose_top_k(query: int | None, given: object, default: int, labels: int) -> int:
    """Returns the number of the query or of the body, or the default where neither has one.

    Args:
        query: what :func:`top_k_of_query` found.
        given: what a body gives, of any type; None is nothing.
        default: at most ``labels`` of it are answered.
        labels: how many there are.

    Raises:
        Refusal: both have one, or that of the body is no whole number in 1..``labels``.
    """
    if given is None:
        return min(default, labels) if query is None else query
    if query is not None:
        raise Refusal(422, "bad_top_k", "top_k is in the query and in the JSON: send it in one")
    return _checked(given, labels)


def _checked(given: object, labels: int) -> int:
    number = int(given) if isinstance(given, float) and given.is_integer() else given
    if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= labels:
        return number
    raise _refusal(given, labels)


def _refusal(given: object, labels: int) -> Refusal:
    detail = f"top_k is {reprlib.repr(given)}: it must be a whole number in 1..{labels}"
    return Refusal(422, "bad_top_k", detail)
