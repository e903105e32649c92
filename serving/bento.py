"""Build a Bento that contains one artifact, its runtime and the serving code, and nothing else.

It prints the Bento's tag. Any machine serves it with: bentoml serve TAG
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import tempfile
from pathlib import Path

import tyro
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from artifact.artifact import Artifact
from artifact.opening import open_artifact, open_runtime
from artifact.runtimes.base import RUNTIMES
from core import cli
from core.errors import UserError
from core.files import staged, write_whole
from serving.selection import Wanted, select, settings_for
from serving.settings import CARRIED, CARRIED_RUNTIME, DEFAULT_RUNTIME, PREFIX, warn_of_unknown

ROOT = Path(__file__).resolve().parents[1]
BENTOFILE = ROOT / "serving" / "bentofile.yaml"
REQUIREMENTS = ROOT / "serving" / "requirements.txt"  # includes the packages of the default runtime


def build(artifact: Artifact, runtime: str) -> str:
    """Builds a Bento for ``artifact`` and ``runtime`` in the Bento store and returns its tag.

    The copied artifact and the runtime's name stay in ``serving``, where ``bentoml build`` finds
    them too.
    """
    import yaml
    from bentoml import bentos
    from bentoml.exceptions import BentoMLException

    if artifact.path.resolve() != CARRIED:
        with staged(CARRIED) as copy:
            shutil.copytree(artifact.path, copy, dirs_exist_ok=True)
    write_whole(CARRIED_RUNTIME, f"{runtime}\n".encode())
    for name in ("ARTIFACT", "RUNTIME"):  # the build imports the service, which must use the copies
        os.environ.pop(PREFIX + name, None)
    options = yaml.safe_load(BENTOFILE.read_text())
    del options["python"]["requirements_txt"]
    options["python"]["packages"] = requirements(runtime)
    try:
        with tempfile.TemporaryDirectory() as folder:
            bentofile = Path(folder) / BENTOFILE.name
            bentofile.write_text(yaml.safe_dump(options))
            bento = bentos.build_bentofile(str(bentofile), build_ctx=str(ROOT))
    except BentoMLException as error:
        raise UserError(f"BentoML cannot build from {BENTOFILE}: {error}") from error
    return str(bento.tag)


def requirements(runtime: str) -> list[str]:
    """Returns the pinned packages of a Bento for ``runtime``.

    Packages of runtimes other than the default are pinned to the versions installed here.

    Raises:
        UserError: a Bento cannot contain this runtime.
    """
    if not RUNTIMES.find(runtime).in_bento:
        able = ", ".join(name for name, spec in RUNTIMES.items() if spec.in_bento)
        raise UserError(
            f"runtime is {runtime!r}: a Bento can hold {able}; pass --runtime {DEFAULT_RUNTIME} "
            "(docs/deploy.md says how an image for GPUs is made of that)"
        )
    lines = REQUIREMENTS.read_text().splitlines()
    pins = {
        canonicalize_name(Requirement(line).name): line
        for line in lines
        if line and not line.startswith("#")
    }
    if runtime != DEFAULT_RUNTIME:
        for unused in RUNTIMES[DEFAULT_RUNTIME].in_bento:
            del pins[canonicalize_name(unused)]
        for name, version in _installed(RUNTIMES[runtime].in_bento).items():
            pins.setdefault(name, f"{name}=={version}")
    return list(pins.values())


def _installed(packages: tuple[str, ...]) -> dict[NormalizedName, str]:
    """Returns the versions of ``packages`` and of all their dependencies, by canonical name."""
    found: dict[NormalizedName, str] = {}
    missing = [Requirement(name) for name in packages]
    while missing:
        wanted = missing.pop()
        name = canonicalize_name(wanted.name)
        if name in found or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        found[name] = importlib.metadata.version(name)
        missing += map(Requirement, importlib.metadata.requires(name) or [])
    return found


def main() -> None:
    """Builds the Bento of the command line and prints its tag."""
    wanted = tyro.cli(Wanted, prog=cli.program("serving.bento"), description=__doc__)
    warn_of_unknown()
    settings = settings_for(wanted)
    selection = select(wanted, settings)
    runtime = selection.runtime
    requirements(runtime)  # fails before anything is loaded
    artifact = open_artifact(selection.artifact)
    # A Bento that cannot start is useless.
    with open_runtime(runtime, artifact, threads=settings.call_threads):
        pass
    print(f"packing {selection.artifact} to run with {runtime} ({selection.why})", file=sys.stderr)
    print(build(artifact, runtime))


if __name__ == "__main__":
    cli.run(main)
