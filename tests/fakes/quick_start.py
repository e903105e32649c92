"""Processes that are forked from one that has imported what takes seconds in each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from typing import Any


def forking(modules: Sequence[str]) -> Any:
    """Returns a stand-in for ``get_context``, whose processes begin with ``modules`` imported.

    They come from a server without threads, which has nothing else of the process that tests.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(list(modules))
    return lambda _: server
