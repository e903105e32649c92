"""Serve one artifact over HTTP: POST an image to /predict, or open / in a browser.

Limits, threads, queue and token are set by environment variables:
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
from dataclasses import dataclass
from typing import Annotated

import tyro

from artifact.artifact import format_of
from artifact.runtimes.base import servable_runtimes
from core import cli
from core.errors import UserError
from serving.selection import Wanted, select, settings_for
from serving.settings import PREFIX, Settings, describe, warn_of_unknown


@dataclass(frozen=True, kw_only=True)
class Serve(Wanted):
    """What to serve, and where."""

    host: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """IP address to listen on. Default: POCKETNETS_HOST, else 127.0.0.1, this machine only."""
    port: Annotated[int | None, tyro.conf.arg(metavar="NUMBER")] = None
    """TCP port. Default: POCKETNETS_PORT, else 3000."""
    allow_unverified: bool = False
    """Serve an artifact even if it was never run. Default: POCKETNETS_ALLOW_UNVERIFIED."""
    abstain: bool = False
    """Answer no label where the best score is below the artifact's threshold for that. Default:
    POCKETNETS_ABSTAIN."""


def main() -> int:
    """Runs the server and returns its exit status."""
    wanted = tyro.cli(Serve, prog=cli.program("serving"), description=_description())
    warn_of_unknown()
    settings, why = settle(wanted)
    with _shared_figures(settings.workers):
        return _serve(settings, why)


def _serve(settings: Settings, why: str) -> int:
    from artifact.answering import answering_of
    from artifact.opening import check_runtime, open_artifact

    artifact = open_artifact(settings.artifact, allow_unverified=settings.allow_unverified)
    check_runtime(settings.runtime, artifact)
    answering_of(artifact, abstain=settings.abstain)  # refuses before there are workers
    with listen(settings.host, settings.port) as listening:
        print(
            f"serving {artifact.path} with {settings.runtime} ({why}) "
            f"on http://{_shown(settings.host)}:{settings.port}",
            file=sys.stderr,
            flush=True,
        )
        os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")  # no telemetry from a server
        from serving.supervisor import supervise

        return supervise(settings, listening)


def settle(wanted: Serve) -> tuple[Settings, str]:
    """Returns the settings from ``wanted`` and the environment, and why this artifact is served.

    It writes all settings to the environment, for the workers.

    Raises:
        UserError: nothing to serve, or what no server runs, or an invalid setting.
    """
    if wanted.host is not None:
        os.environ[PREFIX + "HOST"] = wanted.host
    if wanted.port is not None:
        os.environ[PREFIX + "PORT"] = str(wanted.port)
    if wanted.allow_unverified:
        os.environ[PREFIX + "ALLOW_UNVERIFIED"] = "1"
    if wanted.abstain:
        os.environ[PREFIX + "ABSTAIN"] = "1"
    selection = select(wanted, settings_for(wanted))
    servable_runtimes(format_of(selection.artifact).name)
    os.environ[PREFIX + "ARTIFACT"] = str(selection.artifact.absolute())
    os.environ[PREFIX + "RUNTIME"] = selection.runtime
    if selection.call_threads is not None:
        os.environ.setdefault(PREFIX + "CALL_THREADS", str(selection.call_threads))
    return Settings.from_environment(), selection.why


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens on ``host``:``port``.

    Raises:
        UserError: it is in use, or not allowed; the message says how to choose another.
    """
    version = ipaddress.ip_address(host).version
    listening = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"({error.strerror})"
        raise UserError(
            f"cannot listen on {host}: port {port} {reason}; "
            f"choose another with PORT={port + 1} (make) or --port {port + 1}"
        ) from None
    return listening


@contextmanager
def _shared_figures(workers: int) -> Iterator[None]:
    """Provides a folder in which several workers share their metrics.

    It must exist before prometheus_client is imported, which checks for it then.
    """
    with tempfile.TemporaryDirectory(prefix="pocketnets-") as folder:
        if workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        yield


def _shown(host: str) -> str:
    if host in ("0.0.0.0", "::"):
        return "localhost"
    return f"[{host}]" if ":" in host else host


def _description() -> str:
    rows = [f"{name} [{default}]: {text}" for name, default, text in describe()]
    return "\n\n".join([(__doc__ or "").strip(), *rows])
