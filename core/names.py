"""The one name that a network's runs and artifacts are filed under."""

from __future__ import annotations

ALIASES = {"mobilenet_v3": "mobilenet_v3_large"}


def canonical_name(name: str) -> str:
    """Returns the one name a network is filed under: ``mobilenet_v3`` is ``mobilenet_v3_large``."""
    return ALIASES.get(name, name)
