"""Functions named by text, imported when they are first asked for."""

from __future__ import annotations

import importlib
from typing import Any


def resolve(target: str) -> Any:
    """Returns what ``module:name`` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
