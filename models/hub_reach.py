"""The Hugging Face hub on a machine without a network."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies


@contextmanager
def cache_if_unreachable() -> Iterator[str]:
    """Takes files of the hub only from its cache in the block where the hub has no address here.

    Otherwise huggingface_hub asks for each file again and again, for 23 s, before it looks there.
    Yields in words that the hub is unreachable; an empty text if it has an address, or a proxy.
    """
    from huggingface_hub import constants

    host, before = urlsplit(constants.ENDPOINT).hostname, constants.HF_HUB_OFFLINE
    words = "" if before or getproxies() or _has_address(host) else f"{host} is unreachable"
    constants.HF_HUB_OFFLINE = before or bool(words)
    try:
        yield words
    finally:
        constants.HF_HUB_OFFLINE = before


def _has_address(host: str | None) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False
