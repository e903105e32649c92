"""``pocketnets COMMAND``: all commands; only the chosen one is imported."""

from __future__ import annotations

import importlib.metadata
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from core import cli
from core.errors import UserError, unknown
from core.lazy import resolve
from core.version import own_version

SHELLS = ("bash", "zsh", "tcsh", "fish")
_WITH_TORCH = ("training", "export", "bench")  # packages whose commands import it
_SHOWN = ("torch", "onnxruntime-gpu", "onnxruntime")  # packages whose versions --version prints


@dataclass(frozen=True, slots=True)
class Command:
    """A command, described without importing it.

    Attributes:
        name: name of the command.
        summary: the beginning of its help text.
        flags: ``module:dataclass`` of its flags.
        main: ``module:function`` that parses them and runs the command; if None, the parsed
            dataclass is called.
    """

    name: str
    summary: str
    flags: str
    main: str | None = None


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "train",
            "Train a network on images",
            "training.__main__:Train",
            "training.__main__:main",
        ),
        Command(
            "tune",
            "Search for the network and the recipe of the highest top-1 within a latency",
            "bench.tune.command:Tune",
        ),
        Command(
            "export",
            "Export a network to artifacts in artifacts/<model>-<data>/",
            "export.__main__:Run",
        ),
        Command("list", "List all artifacts after checking their files", "export.__main__:List"),
        Command(
            "show",
            "Show one artifact: what it is, its gates, the operators of its graph",
            "export.__main__:Show",
        ),
        Command(
            "verify",
            "Verify an artifact on this machine against all its gates",
            "export.__main__:Verify",
        ),
        Command(
            "explain",
            "Show what in an image speaks for a class",
            "export.explain.command:Explain",
        ),
        Command(
            "evaluate",
            "Evaluate an artifact on labelled images",
            "predict.evaluate:Evaluate",
        ),
        Command(
            "predict",
            "Classify many images with an artifact, without a server",
            "predict.command:Predict",
        ),
        Command(
            "push",
            "Copy artifacts into BentoML's model store, or to a model hub or MLflow's registry",
            "export.push.command:Push",
        ),
        Command(
            "bench",
            "Measure every artifact in every runtime, pick the fastest to serve",
            "bench.latency.command:Run",
            "bench.console:main",
        ),
        Command(
            "pick",
            "Choose from the measurements what to serve",
            "bench.latency.command:Pick",
        ),
        Command(
            "compare",
            "Show which candidates became significantly faster or slower",
            "bench.latency.command:Compare",
        ),
        Command(
            "report",
            "Write the report again from the recorded measurements",
            "bench.latency.command:Report",
        ),
        Command(
            "serve", "Serve artifacts over HTTP", "serving.command:Serve", "serving.__main__:main"
        ),
        Command(
            "drift",
            "Compare the prediction log of a service with what its artifact was made with",
            "predict.drift_command:DriftCommand",
        ),
        Command(
            "token",
            "Make a token for a service, and print it once",
            "serving.token_command:MakeToken",
        ),
        Command("load", "Measure a running server on this machine", "bench.load.command:Load"),
        Command(
            "bento",
            "Build a Bento that contains one artifact",
            "serving.selection:Wanted",
            "serving.bento:main",
        ),
        Command(
            "models",
            "List the networks and what they cost",
            "models.__main__:Models",
            "models.__main__:main",
        ),
        Command(
            "doctor",
            "Show what can run on this machine, what cannot and why",
            "pocketnets.doctor:Doctor",
        ),
    )
}


def main() -> None:
    """Runs the command line and exits with its status."""
    cli.run(_main)


def _main() -> int | None:
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        _help()
        return None
    if name == "--version":
        print(_versions())
        return None
    if name == "--print-completion":
        _print_completion(arguments)
        return None
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    return _run(COMMANDS[name], arguments)


def _run(command: Command, arguments: list[str]) -> int | None:
    # Usage, errors and cli.program() use the name with which it was called.
    sys.argv = [f"{cli.PROGRAM} {command.name}", *arguments]
    if command.flags.partition(".")[0] in _WITH_TORCH:
        cli.collect_rarely()
    if command.main:
        status: int | None = resolve(command.main)()
        return status
    import tyro

    parsed: Any = tyro.cli(resolve(command.flags), prog=sys.argv[0])
    return parsed()  # type: ignore[no-any-return]


def _help() -> None:
    width = max(map(len, COMMANDS))
    print(f"usage: {cli.PROGRAM} COMMAND [flags]; COMMAND --help lists its flags\n")
    for command in COMMANDS.values():
        print(f"  {command.name:<{width}}  {command.summary}")
    print(f"\n{cli.PROGRAM} --version; {cli.PROGRAM} --print-completion {'|'.join(SHELLS)}")
    print("Layers, rooflines, studies, the timer and a GPU's check: python -m bench --help")


def _versions() -> str:
    """Returns the versions of this package, of the most important libraries and of Python."""
    shown = []
    for package in _SHOWN:
        with suppress(importlib.metadata.PackageNotFoundError):
            shown.append(f"{package} {importlib.metadata.version(package)}")
    shown.append(f"Python {sys.version.split()[0]}")
    return f"{cli.PROGRAM} {own_version()} ({', '.join(shown)})"


def _print_completion(arguments: list[str]) -> None:
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        given = " ".join(arguments)
        raise UserError(f"--print-completion is for {given!r}: it takes one of {', '.join(SHELLS)}")
    import tyro

    flags = {name: resolve(command.flags) for name, command in COMMANDS.items()}
    args = ["--tyro-print-completion", *arguments]
    tyro.extras.subcommand_cli_from_dict(flags, prog=cli.PROGRAM, args=args)
