"""Opens artifacts for inference: checks the files, loads a runtime, runs the golden batch."""

from __future__ import annotations

from pathlib import Path

from artifact.artifact import Artifact, readable
from artifact.golden import check_golden
from artifact.runtimes.base import Runtime, load_runtime, require_runtime, servable_runtimes
from artifact.siblings import other_thresholds
from core import cli
from core.errors import UserError


def open_artifact(path: Path, *, allow_unverified: bool = False) -> Artifact:
    """Loads the artifact in folder ``path`` and checks all of its files.

    Raises:
        UserError: no artifact, a damaged one, one that no server can run, or an unverified one that
            is not allowed.
        RuntimeUnavailable: an unverified one that this machine could not verify.
    """
    artifact = Artifact.load(path)
    servable_runtimes(artifact.format)
    if artifact.unverified and not allow_unverified:
        require_runtime(artifact.spec.proving_runtime)
        verify = cli.by_name(f"verify {path}", f"python -m export verify {path}")
        raise UserError(
            f"{path}: not verified where it was made ({artifact.unverified}); run {verify} here, "
            "or pass --allow-unverified, or set POCKETNETS_ALLOW_UNVERIFIED=1 for a service"
        )
    return artifact


def check_runtime(name: str, artifact: Artifact) -> None:
    """Checks that runtime ``name`` can serve ``artifact`` on this machine, before it is loaded.

    Raises:
        RuntimeUnavailable: something that the runtime needs is missing here.
        UserError: it is none of those that can serve such artifacts.
    """
    allowed = servable_runtimes(artifact.format)
    if name not in allowed:
        raise UserError(
            f"runtime is {name!r}: {artifact.name} artifacts run in {', '.join(allowed)}"
        )
    require_runtime(name)


def open_runtime(name: str, artifact: Artifact, *, threads: int | None = None) -> Runtime:
    """Loads ``artifact`` into runtime ``name`` and checks it against the golden batch.

    Says so where it answers by other thresholds than those beside it.

    Args:
        name: a runtime that accepts the artifact's format.
        artifact: what to run.
        threads: CPU threads inside one call; None for all cores.

    Raises:
        UserError: this machine cannot run it, its files are gone, or it does not reproduce the
            golden batch.
    """
    with readable(artifact.path):
        runtime = load_runtime(name, artifact, threads=threads)
    try:
        check_golden(runtime, artifact)
    except BaseException:
        runtime.close()
        raise
    if words := other_thresholds(artifact):
        cli.notes().print(f"warning: {words}", soft_wrap=True, markup=False, highlight=False)
    return runtime
