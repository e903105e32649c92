"""Registers artifacts in MLflow's model registry: ``mlflow://NAME``.

The files of all artifacts are uploaded to a run, and only when they are there a version of the
model is made of it, so no version is of half of them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifact.artifact import CARD, MANIFEST, Artifact
from core.errors import UserError, first_line
from core.files import sha256
from export.push.changes import Changes
from export.push.hub import contents_of

_EXPERIMENT = "pocketnets"
_TAG = "sha256."  # of the manifest of each artifact, as a tag of the version
_URI = "MLFLOW_TRACKING_URI"


@dataclass(frozen=True, slots=True)
class Registered:
    """Artifacts in MLflow's registry.

    Attributes:
        version: number of the version that has them.
        changes: which of them are others than in the version before.
    """

    version: str
    changes: Changes


def push_to_registry(artifacts: Sequence[Artifact], name: str) -> Registered:
    """Uploads ``artifacts``, of one network, and registers them as a version of the model ``name``.

    Raises:
        UserError: MLflow is not installed, or its server cannot be reached or refuses.
    """
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise UserError(f"mlflow is not installed ({error}); pip install '.[mlflow]'") from None
    contents = contents_of(artifacts)
    digests = {each.name: sha256(each.path / MANIFEST) for each in artifacts}
    uri = os.environ.get(_URI) or "sqlite:///mlflow.db"
    try:
        mlflow.set_tracking_uri(uri)
        client = MlflowClient(uri)
        newest = _newest(client, name)
        before = dict(newest.tags) if newest else {}
        known = {name: before[f"{_TAG}{name}"] for name in digests if f"{_TAG}{name}" in before}
        changes = Changes.between(known, digests)
        if newest and not changes:
            return Registered(str(newest.version), changes)
        run = client.create_run(_experiment(client), run_name=name, tags={"pocketnets": "push"})
        identifier = run.info.run_id
        try:
            with tempfile.TemporaryDirectory() as folder:
                for path, content in contents.items():
                    file = Path(folder, path)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    data = content if isinstance(content, bytes) else content.read_bytes()
                    file.write_bytes(data)
                client.log_artifacts(identifier, folder, "model")
            if newest is None:
                _create(client, name, MlflowException)
            made = client.create_model_version(
                name,
                source=f"{run.info.artifact_uri}/model",
                run_id=identifier,
                tags={f"{_TAG}{name}": digest for name, digest in digests.items()},
                description=(artifacts[0].path / CARD).read_text().partition("---\n\n")[2],
            )
        except BaseException:
            client.set_terminated(identifier, "FAILED")
            raise
        client.set_terminated(identifier, "FINISHED")
    except UserError:
        raise
    except Exception as error:  # of the client, of HTTP and of the database
        raise UserError(f"mlflow://{name}: no version was made ({first_line(error)})") from error
    return Registered(str(made.version), changes)


def _newest(client: Any, name: str) -> Any:
    """Returns the newest version of a model; None if there is none."""
    versions = client.search_model_versions(f"name = '{name}'")
    return max(versions, key=lambda each: int(each.version), default=None)


def _create(client: Any, name: str, error: type[Exception]) -> None:
    """Creates the model, unless it is there without a version."""
    try:
        client.create_registered_model(name)
    except error as problem:
        if getattr(problem, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
            raise


def _experiment(client: Any) -> str:
    known = client.get_experiment_by_name(_EXPERIMENT)
    return str(known.experiment_id if known else client.create_experiment(_EXPERIMENT))
