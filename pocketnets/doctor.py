"""``pocketnets doctor``: shows what can run on this machine, what is missing, and slow settings."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from packaging.requirements import Requirement
from rich.table import Table

from core import cli
from core.cgroups import cpu_quota, memory_limit
from core.errors import UserError, in_words, is_of_library
from core.machine import Machine, instruction_sets
from report.format import gibibytes

PACKAGE = "pocketnets"
_REQUIRED = "(required)"  # name of the row of the required packages


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A runtime, a format or an extra.

    Attributes:
        name: name of the runtime, format or extra.
        detail: the runtime's library and version, the format's artifacts, or the extra's packages.
        lacks: what is missing on this machine, and the remedy; None if it can be used.
    """

    name: str
    detail: str
    lacks: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """The findings of ``pocketnets doctor``.

    Attributes:
        machine: the machine, as in reports.
        instruction_sets: vector instruction sets of the processor.
        cpu_quota: CPU limit of the container in cores; None without a limit.
        memory_limit: memory limit of the container in bytes; None without a limit.
        runtimes: all registered runtimes.
        formats: all registered formats.
        extras: the required packages, then each extra.
        advice: settings that cost time or accuracy, a sentence each.
    """

    machine: Machine
    instruction_sets: tuple[str, ...]
    cpu_quota: float | None
    memory_limit: int | None
    runtimes: tuple[Part, ...]
    formats: tuple[Part, ...]
    extras: tuple[Part, ...]
    advice: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Show what can run on this machine, what cannot and why; the status is 1 if nothing can."""

    json: bool = False
    """Print a JSON object instead of tables."""

    def __call__(self) -> int:
        """Prints the findings; returns 1 if no runtime can be used, else 0."""
        found = examine()
        if self.json:
            print(json.dumps(asdict(found), indent=1))
        else:
            _show(found)
        return int(all(part.lacks for part in found.runtimes))


def examine() -> Findings:
    """Examines what this machine can run, by importing every library; needs no artifact."""
    from artifact.formats import FORMATS
    from artifact.runtimes.base import RUNTIMES, require_runtime, runtime_packages
    from core.lazy import resolve
    from core.machine import this_machine

    machine = this_machine(runtime_packages())
    runtimes = []
    for name, runtime in RUNTIMES.items():
        version = machine.versions.get(runtime.library)
        detail = f"{runtime.library} {version}" if version else "-"
        runtimes.append(Part(name=name, detail=detail, lacks=_lacks(require_runtime, name)))
    formats = []
    for name, format in FORMATS.items():
        made = " ".join(f"{name}-{precision}" for precision in format.schemes)
        require = resolve(format.require) if format.require else None
        formats.append(Part(name=name, detail=made, lacks=_lacks(require, name)))
    return Findings(
        machine=machine,
        instruction_sets=instruction_sets(),
        cpu_quota=cpu_quota(),
        memory_limit=memory_limit(),
        runtimes=tuple(runtimes),
        formats=tuple(formats),
        extras=tuple(_extras()),
        advice=tuple(_advice(machine)),
    )


def _lacks(require: Callable[[str], object] | None, name: str) -> str | None:
    """Returns the message of the error that ``require(name)`` raises; None if it raises none."""
    try:
        if require:
            require(name)
    except Exception as error:  # a broken library raises any type
        if not isinstance(error, UserError) and not is_of_library(error):
            raise
        return in_words(error).removeprefix(f"{name}: ")
    return None


def _extras() -> Iterator[Part]:
    """Yields the required packages, then each extra, from the metadata of this package.

    Raises:
        UserError: this package is not installed.
    """
    try:
        distribution = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"{PACKAGE} is not installed as a package; pip install .") from None
    requirements = [Requirement(text) for text in distribution.requires or ()]
    needed = [each for each in requirements if _applies(each, "")]
    yield _part(_REQUIRED, needed, "pip install .")
    for extra in distribution.metadata.get_all("Provides-Extra") or ():
        added = [each for each in requirements if _applies(each, extra) and each not in needed]
        yield _part(extra, added, f"pip install '.[{extra}]'")


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _part(name: str, requirements: list[Requirement], install: str) -> Part:
    wrong = []
    for requirement in requirements:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, not {requirement.specifier}")
    detail = f"{len(requirements)} packages"
    if name != _REQUIRED:
        detail = " ".join(requirement.name for requirement in requirements)
    return Part(name=name, detail=detail, lacks="; ".join([*wrong, install]) if wrong else None)


def _advice(machine: Machine) -> Iterator[str]:
    """Yields a sentence for each setting of this machine that costs time."""
    from PIL import features

    from serving.settings import Settings

    cores = machine.cores
    try:
        settings = Settings.from_environment()
    except UserError as error:
        yield f"the service would not start: {error}"
    else:
        busy = settings.workers * settings.threads * settings.call_threads
        if busy > cores:
            yield (
                f"the service would run {busy} threads on {cores} usable cores: unset "
                "POCKETNETS_THREADS, or lower it, POCKETNETS_WORKERS or POCKETNETS_CALL_THREADS"
            )
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads) < cores:
        yield f"OMP_NUM_THREADS={threads} lets torch use {threads} of {cores} cores: unset it"
    if machine.governor not in (None, "performance"):
        yield (
            f"the frequency governor is {machine.governor}: latencies vary with the clock; "
            "cpupower frequency-set -g performance holds it"
        )
    if not features.check_feature("libjpeg_turbo"):
        yield "this Pillow decodes JPEG without libjpeg-turbo, which takes longer; reinstall pillow"


def _show(found: Findings) -> None:
    out = cli.results()
    for line in _machine(found):
        out.print(line, soft_wrap=True)
    for title, parts in (
        ("Runtime", found.runtimes),
        ("Format", found.formats),
        ("Extra", found.extras),
    ):
        table = Table(box=None, pad_edge=False, title_justify="left")
        for head in (title, "Here", "What", "Missing"):
            table.add_column(head, overflow="fold")
        for part in parts:
            here = "no" if part.lacks else "yes"
            table.add_row(part.name, here, part.detail, part.lacks or "")
        out.print()
        out.print(table)
    out.print()
    for sentence in found.advice or ("no setting of this machine is known to slow it",):
        out.print(sentence, soft_wrap=True)


def _machine(found: Findings) -> Iterator[str]:
    """Yields lines that describe the machine."""
    machine = found.machine
    yield f"{machine.os}, kernel {machine.kernel}, Python {machine.versions['python']}"
    quota = "" if found.cpu_quota is None else f" (a container's limit: {found.cpu_quota:g})"
    yield f"{machine.cpu}, {machine.cores} usable cores{quota}"
    yield f"vector instructions: {' '.join(found.instruction_sets) or 'not shown by the system'}"
    sizes = [size for size in (machine.memory, found.memory_limit) if size]
    yield f"memory: {gibibytes(min(sizes)) if sizes else 'not shown by the system'}"
    gpu = f"{machine.gpu}, driver {machine.driver}" if machine.gpu else "no NVIDIA GPU"
    yield f"GPU: {gpu}"
