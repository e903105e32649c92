"""Artifacts of the same weights in one folder, whose thresholds may be those of several exports."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from artifact.artifact import MANIFEST, Artifact, read_manifest
from artifact.validation import ArtifactError

_SAME = 1e-3  # of two scores: torch's own may differ in their last digits
_NOT_CHOSEN = 0.5  # the threshold of every label where no images with labels were at hand


def other_thresholds(artifact: Artifact) -> str:
    """Returns in words that those beside an artifact have other thresholds, chosen by images.

    Only artifacts of the same file of weights count. The words are empty if there is none.
    """
    for each in _beside(artifact):
        if _chosen(each) and not _alike(each, artifact):
            return _words([artifact], each)
    return ""


def outdated_thresholds(artifact: Artifact) -> str:
    """Returns in words which of those beside a new artifact lack its thresholds; empty if none.

    If its own were not chosen by images, it is the new one that lacks theirs.
    """
    if not _chosen(artifact):
        return other_thresholds(artifact)
    outdated = [each for each in _beside(artifact) if not _alike(each, artifact)]
    return _words(outdated, artifact) if outdated else ""


def _words(lacking: Sequence[Artifact], chosen: Artifact) -> str:
    formats = " ".join(each.name for each in lacking)
    command = chosen.rebuild_command.replace(f"--formats {chosen.name}", f"--formats {formats}")
    do = "does" if len(lacking) == 1 else "do"
    return (
        f"{', '.join(str(each.path) for each in lacking)} {do} not have the thresholds of "
        f"{chosen.name} beside it, so an image may get other labels; export again: {command}"
    )


def _beside(artifact: Artifact) -> list[Artifact]:
    """Returns the other artifacts in its folder that are of its weights and of several labels."""
    if not artifact.thresholds or artifact.source.sha256 is None:
        return []
    found = []
    for manifest in sorted(artifact.path.absolute().parent.glob(f"*/{MANIFEST}")):
        try:
            each = read_manifest(artifact.path.parent / manifest.parent.name)
        except ArtifactError:  # damaged, or of another version: as good as none
            continue
        same = each.source.sha256 == artifact.source.sha256 and each.labels == artifact.labels
        if same and each.thresholds and each.name != artifact.name:
            found.append(each)
    return found


def _chosen(artifact: Artifact) -> bool:
    return any(each != _NOT_CHOSEN for each in artifact.thresholds)


def _alike(one: Artifact, other: Artifact) -> bool:
    return np.allclose(one.thresholds, other.thresholds, rtol=0, atol=_SAME)
