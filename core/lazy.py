"""Objects named as ``module:name``, imported when they are first needed."""

from __future__ import annotations

import importlib
from typing import Any


def resolve(target: str) -> Any:
    """Imports the module of ``module:name`` and returns the object of that name."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
