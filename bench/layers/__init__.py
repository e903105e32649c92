"""Layers: where a network's time goes, and what bounds it."""
