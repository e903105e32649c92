"""A model that is loaded."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from core.image_types import list_suffixes
from core.preprocess import TYPES
from serving.answers import PRIVATE
from serving.listing import Entry
from serving.predictor import Predictor
from serving.slots import Share


class Served:
    """A loaded model.

    Attributes:
        entry: what the list says of it.
        predictor: classifies images with it.
        slots: its share of the requests in progress.
        mirrored: how many images it is comparing as a shadow.
        bytes: its memory: how much larger this process became by it, at least its files' size.
    """

    def __init__(self, entry: Entry, predictor: Predictor, slots: Share, bytes: int = 0) -> None:
        self.entry = entry
        self.predictor = predictor
        self.slots = slots
        self.bytes = bytes
        self.mirrored = 0

    @property
    def is_idle(self) -> bool:
        """Returns whether no request needs it."""
        return not self.slots.used and not self.mirrored

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """Returns the response of ``GET /model``: the manifest without paths of this machine."""
        settings, artifact = self.predictor.settings, self.predictor.artifact
        facts = dataclasses.asdict(artifact)
        for private in PRIVATE:
            del facts[private]
        limits = ("max_bytes", "max_pixels", "max_images")
        return {
            **facts,
            "runtime": settings.runtime,
            "limits": {name: getattr(settings, name) for name in limits},
            "accepts": {"types": TYPES, "suffixes": list_suffixes()},
        }
