"""Selects the artifact to serve, and says why that one."""

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

FALLBACK = "onnx-fp32"  # runs everywhere, agrees best with torch
FIRST = ("efficientnet_lite0", "imagenet")  # the one whose real weights come with a package


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the command line says of the artifact: its folder, or a network and its data."""

    artifact: Path | None = None
    """Folder of the artifact. Without this and --model: what POCKETNETS_ARTIFACT names, else what
    python -m bench pick chose."""
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Network; of its artifacts the one that the benchmark chose, else onnx-fp32."""
    data: Annotated[str, tyro.conf.arg(metavar="NAME")] = "imagenet"
    """Data the network was trained on; used with --model."""
    runtime: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """What executes the artifact. Without it: the benchmark's choice, else what proved its
    format: ort-cpu for onnx."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """What to serve and how.

    Attributes:
        artifact: its folder.
        runtime: what executes it.
        why: the reason for both, in words.
        call_threads: CPU threads inside one call, where a benchmark chose them; None elsewhere.
    """

    artifact: Path
    runtime: str
    why: str
    call_threads: int | None = None


def settings_for(wanted: Wanted) -> Settings:
    """Returns the settings in the environment, for the artifact that is ``wanted``.

    Raises:
        UserError: a value that is not allowed, or no artifact in the folder that is named.
    """
    environment = {name: text.strip() for name, text in os.environ.items() if text.strip()}
    if not (RUNTIME in environment or wanted.runtime):
        if wanted.model:  # what a carried artifact runs with says nothing of it
            environment[RUNTIME] = DEFAULT_RUNTIME
        elif folder := wanted.artifact or environment.get(ARTIFACT):
            environment[RUNTIME] = _proving_runtime(Path(folder).expanduser())
    return Settings.from_environment(environment)


def _proving_runtime(artifact: Path) -> str:
    name = format_of(artifact).proving_runtime
    return name if is_servable(name) else DEFAULT_RUNTIME


def select(wanted: Wanted, settings: Settings) -> Selection:
    """Returns what ``wanted`` comes to; what it leaves open is taken from ``settings``.

    Raises:
        UserError: both a folder and a network, nothing at all, or a network without artifacts.
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
