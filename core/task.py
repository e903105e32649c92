"""What a network is asked about an image: which one class it is of, or which labels it has."""

from __future__ import annotations

from typing import Literal

Task = Literal["single", "multi"]
"""single: one of the classes, scores are a softmax; multi: any of the labels, each score is the
sigmoid of its own logit."""
