"""Starts the service: checks its models, listens, and supervises the workers."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.ports import check_grpc, listen, reserved
from serving.repository import check, first_listing
from serving.settings import Settings, warn_of_unknown
from serving.tracing import exporter_class


def from_environment() -> int:
    """Serves what the environment says; returns the exit status.

    Raises:
        UserError: an invalid setting, or as :func:`start`.
    """
    warn_of_unknown()
    return start(Settings.from_environment(), "by the environment")


def start(settings: Settings, why: str) -> int:
    """Serves until the last worker has ended; returns the exit status.

    Args:
        settings: those of the environment, from which the workers read them.
        why: why this artifact is served, in words.

    Raises:
        UserError: an artifact that no server runs, or an address that cannot be listened on.
    """
    with _shared_folder(settings.workers) as folder:
        return _serve(settings, why, folder)


def _serve(settings: Settings, why: str, folder: Path) -> int:
    from serving.state import FOLDER, State

    if settings.tracing:
        exporter_class()  # or each worker would fail by it
    check_grpc(settings)
    listing = first_listing(settings)
    for entry in listing.entries:
        check(entry, settings)
    os.environ[FOLDER] = str(folder)
    state = State(folder)
    state.write(listing)
    with listen(settings.host, settings.port) as listening, reserved(settings):
        print(
            f"serving {settings.artifact} with {settings.runtime} ({why}) "
            f"on http://{_shown(settings.host)}:{settings.port}",
            file=sys.stderr,
            flush=True,
        )
        if settings.grpc_port:
            print(f"gRPC on {_shown(settings.host)}:{settings.grpc_port}", file=sys.stderr)
        if len(listing.entries) > 1:
            names = ", ".join(entry.reference for entry in listing.entries)
            print(f"models: {names}; default: {listing.default}", file=sys.stderr, flush=True)
        for kind, trial in (("canary", listing.canary), ("shadow", listing.shadow)):
            if trial is not None:
                print(f"{kind}: {trial.name} {100 * trial.share:.6g}%", file=sys.stderr, flush=True)
        os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")  # no telemetry from a server
        from serving.supervisor import supervise

        return supervise(settings, listening, state)


@contextmanager
def _shared_folder(workers: int) -> Iterator[Path]:
    """Yields a folder for the list of models; beside it, several workers share their metrics.

    That must exist before prometheus_client is imported, which checks for it then.
    """
    with tempfile.TemporaryDirectory(prefix="pocketnets-") as folder:
        if workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        yield Path(folder) / "state"


def _shown(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return "localhost"
    return f"[{host}]" if ":" in host else host
