"""Launches the service: checks its models, listens, and supervises the workers.

``python -m serving.launch`` takes everything from the environment: it is what a container runs.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from core import cli
from core.errors import UserError
from serving.repository import check, first_listing
from serving.settings import PREFIX, Settings, warn_of_unknown
from serving.tracing import exporter_class


def main() -> int:
    """Serves what the environment says; returns the exit status."""
    warn_of_unknown()
    return launch(Settings.from_environment(), "by the environment")


def launch(settings: Settings, why: str) -> int:
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
    if settings.grpc_port and not all(map(find_spec, ("grpc", "google.protobuf"))):
        raise UserError(f"{PREFIX}GRPC_PORT is set, which needs gRPC: pip install '.[grpc]'")
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


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens on ``host``:``port``.

    Raises:
        UserError: it is in use, or not allowed; the message says how to choose another.
    """
    return _bound(host, port, f"PORT={port + 1} (make) or --port {port + 1}", backlog=2048)


def _bound(host: str, port: int, another: str, backlog: int = 0) -> socket.socket:
    """Returns a socket of that address, which listens if there is a ``backlog``."""
    version = ipaddress.ip_address(host).version
    bound = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        if backlog:
            bound.listen(backlog)
    except OSError as error:
        bound.close()
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"({error.strerror})"
        raise UserError(
            f"cannot listen on {host}: port {port} {reason}; choose another with {another}"
        ) from None
    return bound


@contextmanager
def reserved(settings: Settings) -> Iterator[None]:
    """A context manager: inside, the port of gRPC is this service's.

    Each worker listens there itself, beside the others. What allows that is set once the port is
    bound, or two services could share it.

    Raises:
        UserError: as :func:`listen`.
    """
    port = settings.grpc_port
    if not port:
        yield
        return
    with _bound(settings.host, port, f"--grpc-port {port + 1}") as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield


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


if __name__ == "__main__":
    cli.run(main)
