"""Selects the artifact to serve, with the reason."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from artifact.artifact import ARTIFACTS, format_of
from artifact.runtimes.base import is_servable
from artifact.store import PICK_FILE, SavedPick, read_pick
from core.errors import UserError, closest
from serving.settings import CARRIED, DEFAULT_RUNTIME, PREFIX, Settings

ARTIFACT, RUNTIME = PREFIX + "ARTIFACT", PREFIX + "RUNTIME"

FALLBACK = "onnx-fp32"  # runs everywhere and is the closest to torch
FIRST = ("efficientnet_lite0", "imagenet")  # the network whose published weights come as a package


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Command-line options that select the artifact: its folder, or a network and its data."""

    artifact: Path | None = None
    """Folder of the artifact. Default, without --model: POCKETNETS_ARTIFACT, else the choice of
    python -m bench pick."""
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Network, of which the benchmark's choice is served, else onnx-fp32."""
    data: Annotated[str, tyro.conf.arg(metavar="NAME")] = "imagenet"
    """Data the network was trained on; used with --model."""
    runtime: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Runtime. Default: the benchmark's choice, else the one that verified the format: ort-cpu for
    onnx."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """What to serve and how.

    Attributes:
        artifact: folder of the artifact.
        runtime: name of the runtime.
        why: a text with the reason for both.
        call_threads: CPU threads inside one call, if a benchmark chose them; None otherwise.
    """

    artifact: Path
    runtime: str
    why: str
    call_threads: int | None = None


def settings_for(wanted: Wanted) -> Settings:
    """Returns the settings from the environment, for the artifact that ``wanted`` selects.

    Raises:
        UserError: an invalid value, or no artifact in the named folder.
    """
    environment = {name: text.strip() for name, text in os.environ.items() if text.strip()}
    if not (RUNTIME in environment or wanted.runtime):
        if wanted.model:  # the runtime of a packed artifact does not apply to it
            environment[RUNTIME] = DEFAULT_RUNTIME
        elif folder := wanted.artifact or environment.get(ARTIFACT):
            environment[RUNTIME] = _proving_runtime(Path(folder).expanduser())
    return Settings.from_environment(environment)


def _proving_runtime(artifact: Path) -> str:
    name = format_of(artifact).proving_runtime
    return name if is_servable(name) else DEFAULT_RUNTIME


def select(wanted: Wanted, settings: Settings) -> Selection:
    """Returns the selection for ``wanted``; unset options are taken from ``settings``.

    Raises:
        UserError: both a folder and a network are given, there is nothing to serve, or the network
            has no artifacts.
    """
    if wanted.artifact and wanted.model:
        raise UserError(
            f"--artifact {wanted.artifact} and --model {wanted.model}: give one of the two"
        )
    if wanted.model:
        return _of_model(wanted.model, wanted, settings)
    artifact = wanted.artifact or settings.artifact
    if artifact == CARRIED and not CARRIED.exists():
        if choice := read_pick(ARTIFACTS):
            return _chosen(ARTIFACTS, choice, wanted, "picked of all networks")
        model, data = FIRST
        if (ARTIFACTS / f"{model}-{data}").is_dir():
            return _of_model(model, replace(wanted, data=data), settings)
        raise UserError(
            "no artifact to serve: pass --model mobilenet_v3 --data digits, or --artifact FOLDER, "
            f"or let python -m bench pick choose, or make one: make export MODEL={model}"
        )
    why = "by --artifact" if wanted.artifact else "by the settings"
    return Selection(artifact=artifact, runtime=wanted.runtime or settings.runtime, why=why)


def _of_model(name: str, wanted: Wanted, settings: Settings) -> Selection:
    from core.names import canonical_name

    model = canonical_name(name)
    folder = ARTIFACTS / f"{model}-{wanted.data}"
    if not folder.is_dir():
        there = [path.name for path in ARTIFACTS.glob("*-*") if path.is_dir()]
        hint = f" ({closest(folder.name, there)})" if there else ""
        raise UserError(
            f"{folder}: no such folder{hint}; "
            f"make it with: make export MODEL={name} DATA={wanted.data}"
        )
    choice = read_pick(folder)
    if choice is None:
        return Selection(
            artifact=folder / FALLBACK,
            runtime=wanted.runtime or settings.runtime,
            why=f"there is no {PICK_FILE} beside it; make bench measures which is fastest",
        )
    return _chosen(folder, choice, wanted, "the fastest measured")


def _chosen(folder: Path, choice: SavedPick, wanted: Wanted, how: str) -> Selection:
    threads = f", {choice.threads} threads a call" if choice.threads > 1 else ""
    return Selection(
        artifact=folder / choice.artifact,
        runtime=wanted.runtime or choice.runtime,
        why=f"{how}: {choice.p50_s * 1e3:.2f} ms on {choice.machine}{threads}",
        call_threads=choice.threads,
    )
