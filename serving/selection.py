"""Selects the artifact to serve, with the reason."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from artifact.artifact import ARTIFACTS, format_of
from artifact.runtimes.base import is_servable
from artifact.store import choose, read_pick
from core.errors import UserError, closest
from serving.settings import CARRIED, DEFAULT_RUNTIME, PREFIX, Settings

ARTIFACT, RUNTIME = PREFIX + "ARTIFACT", PREFIX + "RUNTIME"

FIRST = ("efficientnet_lite0", "imagenet")  # the network whose published weights come as a package


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Command-line options that select the artifact: its folder, or a network and its data."""

    artifact: Path | None = None
    """Folder of the artifact, or of several of which the benchmark chose one. Default, without
    --model: POCKETNETS_ARTIFACT, else the choice of python -m bench pick."""
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
            choice = choose(Path(folder).expanduser())
            environment[RUNTIME] = choice.runtime or _proving_runtime(choice.artifact)
    return Settings.from_environment(environment)


def _proving_runtime(artifact: Path) -> str:
    name = format_of(artifact).proving_runtime
    return name if is_servable(name) else DEFAULT_RUNTIME


def select(wanted: Wanted, settings: Settings, why: str = "by --artifact") -> Selection:
    """Returns the selection for ``wanted``; unset options are taken from ``settings``.

    Args:
        wanted: the options.
        settings: those of the environment.
        why: why ``wanted`` has its folder, if it has one.

    Raises:
        UserError: both a folder and a network are given, there is nothing to serve, or the network
            has no artifacts.
    """
    if wanted.artifact and wanted.model:
        raise UserError(
            f"--artifact {wanted.artifact} and --model {wanted.model}: give one of the two"
        )
    if wanted.model:
        return _chosen(_folder_of(wanted.model, wanted.data), wanted, settings)
    if wanted.artifact:
        return _chosen(wanted.artifact, wanted, settings, why)
    if settings.artifact != CARRIED or CARRIED.exists():
        return _chosen(settings.artifact, wanted, settings, "by the settings")
    if read_pick(ARTIFACTS):
        return _chosen(ARTIFACTS, wanted, settings)
    model, data = FIRST
    if (folder := ARTIFACTS / f"{model}-{data}").is_dir():
        return _chosen(folder, wanted, settings)
    raise UserError(
        "no artifact to serve: pass --model mobilenet_v3 --data digits, or --artifact FOLDER, "
        f"or let python -m bench pick choose, or make one: make export MODEL={model}"
    )


def _folder_of(name: str, data: str) -> Path:
    """Returns the folder of a network's artifacts.

    Raises:
        UserError: there is none.
    """
    from core.names import canonical_name

    model = canonical_name(name)
    folder = ARTIFACTS / f"{model}-{data}"
    if folder.is_dir():
        return folder
    of_model = sorted(path.name for path in ARTIFACTS.glob(f"{model}-*") if path.is_dir())
    if of_model:
        prefix = f"{Path(model).name}-"
        known = ", ".join(f"--data {each.removeprefix(prefix)}" for each in of_model)
        raise UserError(f"{folder}: no such folder; of {name} there is {known}")
    there = [path.name for path in ARTIFACTS.glob("*-*") if path.is_dir()]
    hint = f" ({closest(folder.name, there)})" if there else ""
    published = "" if data == FIRST[1] else f" DATA={data}"
    raise UserError(
        f"{folder}: no such folder{hint}; make it with: make export MODEL={name}{published}"
    )


def _chosen(folder: Path, wanted: Wanted, settings: Settings, why: str = "") -> Selection:
    choice = choose(folder)
    named = wanted.runtime or os.environ.get(RUNTIME, "").strip()
    return Selection(
        artifact=choice.artifact,
        runtime=named or choice.runtime or settings.runtime,
        why=", ".join(filter(None, (why, choice.why))),
        call_threads=choice.threads,
    )
