"""Serve artifacts over HTTP: POST an image to /predict, or open / in a browser.

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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from artifact.artifact import format_of
from artifact.runtimes.base import servable_runtimes
from core import cli
from core.errors import UserError
from serving.repository import check, default_in, first_listing, split_name
from serving.selection import Wanted, select, settings_for
from serving.settings import PREFIX, Settings, describe, warn_of_unknown


@dataclass(frozen=True, kw_only=True)
class Serve(Wanted):
    """What to serve, and where."""

    models: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="MODEL")] = ()
    """Folders of artifacts, or of several as for --artifact, each a model: [NAME=]FOLDER. The first
    answers paths that name no model, unless --artifact or --model is given."""
    repository: Path | None = None
    """Folder of models, all of which are loaded. Default: POCKETNETS_REPOSITORY."""
    canary: Annotated[str | None, tyro.conf.arg(metavar="NAME=5%")] = None
    """Model that answers a share of the requests that name none. Default: POCKETNETS_CANARY."""
    shadow: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Model that is asked, too, and never answers; NAME=5% for a share. Default:
    POCKETNETS_SHADOW."""
    watch: bool = False
    """Follow what changes in the repository: models come, are replaced and go. Default:
    POCKETNETS_WATCH."""
    default: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Which model of the repository answers paths that name none. Default: the benchmark's choice,
    else the first by name."""
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
    with _shared_folder(settings.workers) as folder:
        return _serve(settings, why, folder)


def _serve(settings: Settings, why: str, folder: Path) -> int:
    from serving.state import FOLDER, State

    listing = first_listing(settings)
    for entry in listing.entries:
        check(entry, settings)
    os.environ[FOLDER] = str(folder)
    state = State(folder)
    state.write(listing)
    with listen(settings.host, settings.port) as listening:
        print(
            f"serving {settings.artifact} with {settings.runtime} ({why}) "
            f"on http://{_shown(settings.host)}:{settings.port}",
            file=sys.stderr,
            flush=True,
        )
        if len(listing.entries) > 1:
            names = ", ".join(entry.reference for entry in listing.entries)
            print(f"models: {names}; default: {listing.default}", file=sys.stderr, flush=True)
        os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")  # no telemetry from a server
        from serving.supervisor import supervise

        return supervise(settings, listening, state)


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
    if wanted.canary is not None:
        os.environ[PREFIX + "CANARY"] = wanted.canary
    if wanted.shadow is not None:
        os.environ[PREFIX + "SHADOW"] = wanted.shadow
    if wanted.watch:
        os.environ[PREFIX + "WATCH"] = "1"
    if wanted.abstain:
        os.environ[PREFIX + "ABSTAIN"] = "1"
    wanted = _default_of_several(wanted)
    selection = select(wanted, settings_for(wanted))
    servable_runtimes(format_of(selection.artifact).name)
    os.environ[PREFIX + "ARTIFACT"] = str(selection.artifact.absolute())
    os.environ[PREFIX + "RUNTIME"] = selection.runtime
    if selection.call_threads is not None:
        os.environ.setdefault(PREFIX + "CALL_THREADS", str(selection.call_threads))
    return Settings.from_environment(), selection.why


def _default_of_several(wanted: Serve) -> Serve:
    """Returns ``wanted`` with the folder of the default, and writes the others to the environment.

    Raises:
        UserError: --default without a repository, or no model in it.
    """
    if wanted.models:
        os.environ[PREFIX + "MODELS"] = ",".join(wanted.models)
    if wanted.repository is not None:
        os.environ[PREFIX + "REPOSITORY"] = str(wanted.repository)
    repository = os.environ.get(PREFIX + "REPOSITORY", "").strip()
    if wanted.default is not None and not repository:
        raise UserError(f"--default {wanted.default}: it names a model of --repository FOLDER")
    if wanted.artifact or wanted.model:
        return wanted
    if wanted.models and wanted.default is None:
        return replace(wanted, artifact=split_name(wanted.models[0])[1])
    if repository and (wanted.default or not os.environ.get(PREFIX + "ARTIFACT", "").strip()):
        folder = default_in(Path(repository).expanduser(), wanted.default)
        return replace(wanted, artifact=folder)
    return wanted


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


def _description() -> str:
    rows = [f"{name} [{default}]: {text}" for name, default, text in describe()]
    return "\n\n".join([(__doc__ or "").strip(), *rows])
