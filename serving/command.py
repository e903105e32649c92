"""Serve artifacts over HTTP: POST an image to /predict, or open / in a browser.

Limits, threads, queue and token are set by environment variables:
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from artifact.artifact import format_of
from artifact.runtimes.base import servable_runtimes
from artifact.store import read_pick
from core import cli
from core.errors import UserError
from serving.repository import check_given, default_in, split_name
from serving.selection import Wanted, select, settings_for
from serving.settings import PREFIX, Settings, describe, warn_of_unknown
from serving.starting import start


@dataclass(frozen=True, kw_only=True)
class Serve(Wanted):
    """What to serve, and where."""

    models: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[[NAME=]FOLDER ...]")
    ] = ()
    """Folders of artifacts, or of several as for --artifact, each a model. The first answers paths
    that name no model, unless --artifact or --model is given. They may be left out."""
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
    grpc_port: Annotated[int | None, tyro.conf.arg(metavar="NUMBER")] = None
    """TCP port of gRPC, for clients of the Open Inference Protocol. Default: POCKETNETS_GRPC_PORT,
    else none."""
    allow_unverified: bool = False
    """Serve an artifact even if it was never run. Default: POCKETNETS_ALLOW_UNVERIFIED."""
    abstain: bool = False
    """Answer no label where the best score is below the artifact's threshold for that. Default:
    POCKETNETS_ABSTAIN."""


def serve() -> int:
    """Serves what the command line says; returns the exit status."""
    wanted = tyro.cli(Serve, prog=cli.program("serving"), description=_description())
    warn_of_unknown()
    settings, why = settle(wanted)
    return start(settings, why)


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
    if wanted.grpc_port is not None:
        os.environ[PREFIX + "GRPC_PORT"] = str(wanted.grpc_port)
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
    wanted, why = _default_of_several(wanted)
    selection = select(wanted, settings_for(wanted), why)
    servable_runtimes(format_of(selection.artifact).name)
    os.environ[PREFIX + "ARTIFACT"] = str(selection.artifact.absolute())
    os.environ[PREFIX + "RUNTIME"] = selection.runtime
    if selection.call_threads is not None:
        os.environ.setdefault(PREFIX + "CALL_THREADS", str(selection.call_threads))
    return Settings.from_environment(), selection.why


def _default_of_several(wanted: Serve) -> tuple[Serve, str]:
    """Returns ``wanted`` with the folder of the default, and why it is that.

    It writes the others to the environment.

    Raises:
        UserError: --default without a repository, no model in it, or a folder that is no model.
    """
    for folder in [split_name(text)[1] for text in wanted.models]:
        check_given(folder)
    if wanted.artifact:
        check_given(wanted.artifact)
    if wanted.models:
        os.environ[PREFIX + "MODELS"] = ",".join(wanted.models)
    if wanted.repository is not None:
        os.environ[PREFIX + "REPOSITORY"] = str(wanted.repository)
    repository = os.environ.get(PREFIX + "REPOSITORY", "").strip()
    if wanted.default is not None and not repository:
        raise UserError(f"--default {wanted.default}: it names a model of --repository FOLDER")
    if wanted.artifact or wanted.model:
        return wanted, "by --artifact"
    if wanted.models and wanted.default is None:
        return replace(wanted, artifact=split_name(wanted.models[0])[1]), "first argument"
    if repository and (wanted.default or not os.environ.get(PREFIX + "ARTIFACT", "").strip()):
        where = Path(repository).expanduser()
        folder = default_in(where, wanted.default)
        why = "by --default"
        if wanted.default is None:
            why = "first by name; choose with --default"
            if read_pick(where):
                why = "picked in the repository"
        return replace(wanted, artifact=folder), why
    return wanted, ""


def _description() -> str:
    rows = [f"{name} [{default}]: {text}" for name, default, text in describe()]
    return "\n\n".join([(__doc__ or "").strip(), *rows])
