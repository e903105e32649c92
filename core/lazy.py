"""Objects named by text, imported when they are first needed."""

from __future__ import annotations

import importlib
from typing import Any


def resolve(target: str) -> Any:
    """Returns the object that ``module:name`` names, importing its module."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
