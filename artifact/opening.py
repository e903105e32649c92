"""Opens artifacts for inference: checks the files, loads a runtime, runs the golden batch."""

from __future__ import annotations

from pathlib import Path

from artifact.artifact import Artifact
from artifact.golden import check_golden
from artifact.runtimes.base import Runtime, load_runtime
from core.errors import UserError


def open_artifact(path: Path, *, allow_unverified: bool = False) -> Artifact:
    """Loads the artifact in folder ``path`` and checks all of its files.

    Raises:
        UserError: no artifact, a damaged one, or an unverified one that is not allowed.
    """
    artifact = Artifact.load(path)
    if artifact.unverified and not allow_unverified:
        raise UserError(
            f"{path}: not verified where it was made ({artifact.unverified}); "
            f"run python -m export verify {path} here, or pass --allow-unverified, or set "
            "POCKETNETS_ALLOW_UNVERIFIED=1 for a service"
        )
    return artifact


def open_runtime(name: str, artifact: Artifact, *, threads: int | None = None) -> Runtime:
    """Loads ``artifact`` into runtime ``name`` and checks it against the golden batch.

    Args:
        name: a runtime that accepts the artifact's format.
        artifact: what to run.
        threads: CPU threads inside one call; None for all cores.

    Raises:
        UserError: this machine cannot run it, or it does not reproduce the golden batch.
    """
    runtime = load_runtime(name, artifact, threads=threads)
    try:
        check_golden(runtime, artifact)
    except BaseException:
        runtime.close()
        raise
    return runtime
