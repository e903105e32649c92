"""The torch network that an artifact was made from."""

from __future__ import annotations

from pathlib import Path

from artifact.artifact import Artifact
from core.errors import UserError
from core.files import sha256
from export.foreign_reference import read_given
from export.random_weights import random_module
from models.channels import adapted_imagenet
from models.classifier import Classifier
from models.fit_weights import fit_weights
from models.saved_weights import read_weights
from models.weights import imagenet_classifier, load_imagenet_weights
from training.checkpoint import load_checkpoint


def check_kept(artifact: Artifact) -> None:
    """Raises UserError if the trained weights of ``artifact`` are in no file."""
    if artifact.weights == "trained" and artifact.source.checkpoint is None:
        raise UserError(f"{artifact.path} was made from {artifact.source.origin}; no file keeps it")


def rebuild(artifact: Artifact) -> Classifier:
    """Returns the torch network an artifact was made from, in evaluation mode.

    Raises:
        UserError: its checkpoint is missing, or differs from the one in the manifest.
    """
    if artifact.weights == "random":
        return random_module(artifact.model, artifact.preprocess)
    if artifact.weights == "imagenet":
        size, channels = artifact.preprocess.crop, artifact.preprocess.channels
        published = load_imagenet_weights(artifact.model)
        weights, _ = adapted_imagenet(artifact.model, published, channels)
        return imagenet_classifier(artifact.model, weights, size=size).eval()
    check_kept(artifact)
    path = check_source(artifact)
    if reading := artifact.source.reading:
        if reading.graph:
            raise UserError(f"{path} is an ONNX graph, which torch does not run")
        if reading.program:
            module = read_given(path, artifact.preprocess.crop, reading).module
            assert isinstance(module, Classifier)
            return module
        size, channels = artifact.preprocess.crop, artifact.preprocess.channels
        fitted = fit_weights(artifact.model, read_weights(path), reading.entry, size, channels)
        return Classifier(fitted.network, mean=reading.mean, std=reading.std).eval()
    trained = load_checkpoint(path).network()
    assert isinstance(trained, Classifier)
    return trained


def check_source(artifact: Artifact) -> Path:
    """Returns the path of the file of weights that an artifact was made from.

    Raises:
        UserError: it is missing, or differs from the one in the manifest.
    """
    path = Path(artifact.source.checkpoint or "")
    if not path.is_file():
        raise UserError(f"the checkpoint {path} is not here; run this where it was trained")
    if sha256(path) != artifact.source.sha256:
        # Exporting a run replaces its artifacts; weights of other software never do.
        first = f"remove {artifact.path.parent}, then " if artifact.source.reading else ""
        raise UserError(
            f"{path} changed since {artifact.path} was exported; {first}{artifact.rebuild_command}"
        )
    return path
