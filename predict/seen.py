"""Finds the images that an artifact was trained on, if its run is available."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from artifact.artifact import Artifact
from core.errors import first_line
from core.files import sha256
from training.identity import IMAGE_LIST, learned_from


@dataclass(frozen=True, kw_only=True, slots=True)
class Learned:
    """The images an artifact was trained on.

    Attributes:
        digests: digests of their contents, see :mod:`training.identity`; None if unknown.
        words: the end of a sentence: how that is known, or why it is not.
    """

    digests: frozenset[bytes] | None
    words: str


def learned_by(artifact: Artifact) -> Learned:
    """Returns the images ``artifact`` was trained on.

    They are listed in its run, next to the checkpoint named in the manifest. The run is looked for
    below the current folder, and below the folder that contains ``artifacts/``.
    """
    if artifact.weights == "random":
        return Learned(digests=frozenset(), words="its weights are random")
    if artifact.source.checkpoint is None or artifact.source.reading is not None:
        words = f"its weights are not of a run here ({artifact.source.origin})"
        return Learned(digests=None, words=words)
    roots = (Path(), *artifact.path.resolve().parents[2:3])
    places = [root / artifact.source.checkpoint for root in roots]
    checkpoint = next((path for path in places if path.is_file()), None)
    if checkpoint is None:
        return Learned(digests=None, words=f"its run is not here ({places[0]})")
    if sha256(checkpoint) != artifact.source.sha256:
        return Learned(digests=None, words=f"{checkpoint} is of another run")
    images = checkpoint.with_name(IMAGE_LIST)
    try:
        digests = learned_from(checkpoint.parent)
    except (OSError, ValueError) as error:
        return Learned(digests=None, words=f"{images} cannot be read ({first_line(error)})")
    return Learned(digests=digests, words=f"{images} lists {len(digests):,} images")
