"""Canonical names of networks, used in the names of runs and artifacts."""

from __future__ import annotations

ALIASES = {"mobilenet_v3": "mobilenet_v3_large"}


def canonical_name(name: str) -> str:
    """Returns the canonical name of a network: ``mobilenet_v3_large`` for ``mobilenet_v3``."""
    return ALIASES.get(name, name)
