"""An artifact made ready to answer: checked, loaded, and proven by its golden batch."""

from __future__ import annotations

from pathlib import Path

from artifact.artifact import Artifact
from artifact.golden import check_golden
from artifact.runtimes.base import Runtime, load_runtime
from core.errors import UserError


def open_artifact(path: Path, *, allow_unverified: bool = False) -> Artifact:
    """Returns the artifact in folder ``path``, every file of it checked.

    Raises:
        UserError: no artifact, a damaged one, or one that was never run and is not allowed.
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
    """Returns runtime ``name`` with ``artifact`` loaded, after it reproduced the golden batch.

    Args:
        name: of a runtime that takes the artifact's format.
        artifact: what to run.
        threads: CPU threads inside one call; None for all cores.

    Raises:
        UserError: this machine cannot run it, or it answers something else.
    """
    runtime = load_runtime(name, artifact, threads=threads)
    try:
        check_golden(runtime, artifact)
    except BaseException:
        runtime.close()
        raise
    return runtime
