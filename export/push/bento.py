"""Copies artifacts into BentoML's model store."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from artifact.artifact import MANIFEST, Artifact
from core.files import sha256


class Pushed(NamedTuple):
    """The place of an artifact in the model store."""

    tag: str
    path: Path
    new: bool  # False if the very same one was there already


def push(artifact: Artifact) -> Pushed:
    """Copies ``artifact`` into the model store of this machine and returns its place there.

    Its version is the beginning of the manifest's digest, so the same artifact is stored once.
    """
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    import bentoml

    name = re.sub(r"[^a-z0-9._-]", "_", f"{artifact.model}-{artifact.data}-{artifact.name}".lower())
    tag = f"{name}:{sha256(artifact.path / MANIFEST)[:16]}"
    try:
        return Pushed(tag, Path(bentoml.models.get(tag).path), new=False)
    except bentoml.exceptions.NotFound:
        pass  # not stored yet: add it
    labels = {"format": artifact.format, "precision": artifact.precision, "data": artifact.data}
    with bentoml.models.create(tag, labels=labels) as model:
        shutil.copytree(artifact.path, model.path, dirs_exist_ok=True)
    return Pushed(tag, Path(bentoml.models.get(tag).path), new=True)
