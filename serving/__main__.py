"""Serves one artifact over HTTP: POST an image to /predict.

Limits and threads are set by environment variables, POCKETNETS_THREADS and the like;
serving/settings.py describes them all.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from models import cli
from models.errors import UserError
from serving.predictor import open_artifact
from serving.selection import Wanted, select
from serving.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[1]
GRACE_S = 20  # what an unfinished request gets after SIGTERM


@dataclass(frozen=True, kw_only=True)
class Serve(Wanted):
    """What to serve, and where."""

    host: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """IP address to listen on. Without it: POCKETNETS_HOST, else 127.0.0.1, this machine only."""
    port: Annotated[int | None, tyro.conf.arg(metavar="NUMBER")] = None
    """TCP port. Without it: POCKETNETS_PORT, else 3000."""
    allow_unverified: bool = False
    """Serve an artifact even if it was never run. Without it: POCKETNETS_ALLOW_UNVERIFIED."""


def main() -> int:
    """Returns never: the process becomes the server once artifact and port are found good."""
    wanted = tyro.cli(Serve, prog="python -m serving", description=__doc__)
    environment = {**os.environ}
    if wanted.host is not None:
        environment[PREFIX + "HOST"] = wanted.host
    if wanted.port is not None:
        environment[PREFIX + "PORT"] = str(wanted.port)
    if wanted.allow_unverified:
        environment[PREFIX + "ALLOW_UNVERIFIED"] = "1"
    selection = select(wanted, Settings.from_environment(environment))
    environment[PREFIX + "ARTIFACT"] = str(selection.artifact.absolute())
    environment[PREFIX + "RUNTIME"] = selection.runtime
    if selection.call_threads is not None:
        environment.setdefault(PREFIX + "CALL_THREADS", str(selection.call_threads))
    settings = Settings.from_environment(environment)
    open_artifact(settings)
    check_port(settings.host, settings.port)
    print(
        f"serving {selection.artifact} with {selection.runtime} ({selection.why})",
        file=sys.stderr,
        flush=True,
    )
    environment.setdefault("BENTOML_DO_NOT_TRACK", "True")  # a server calls nobody by itself
    # The same process goes on as BentoML's supervisor: a signal to it reaches the server.
    command = ["-m", "bentoml", "serve", "serving.service:Pocketnets"]
    options = ["--working-dir", str(ROOT), "--timeout-graceful-shutdown", str(GRACE_S)]
    os.execve(sys.executable, [sys.executable, *command, *options], environment)


def check_port(host: str, port: int) -> None:
    """Returns None if ``host``:``port`` can be listened on.

    Raises:
        UserError: it is in use, or not allowed; the message says how to choose another.
    """
    version = ipaddress.ip_address(host).version
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"({error.strerror})"
            raise UserError(
                f"cannot listen on {host}: port {port} {reason}; "
                f"choose another with PORT={port + 1} (make) or --port {port + 1}"
            ) from None


if __name__ == "__main__":
    cli.run(main)
