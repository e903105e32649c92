"""Build a Bento that holds one artifact, the code that serves it and nothing else.

It prints the Bento's tag. Any machine serves it with: bentoml serve TAG
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import tyro

from artifact.artifact import Artifact
from artifact.opening import open_artifact, open_runtime
from core import cli
from core.errors import UserError
from core.files import staged
from serving.selection import Wanted, select
from serving.settings import CARRIED, PREFIX, Settings

ROOT = Path(__file__).resolve().parents[1]
RUNTIME = "ort-cpu"  # what the packages in requirements.txt can run


def build(artifact: Artifact) -> str:
    """Returns the tag of a new Bento around ``artifact``, in the Bento store.

    A copy of the artifact stays in ``serving/artifact``, where ``bentoml build`` finds it too.
    """
    from bentoml import bentos
    from bentoml.exceptions import BentoMLException

    if artifact.path.resolve() != CARRIED:
        with staged(CARRIED) as folder:
            shutil.copytree(artifact.path, folder, dirs_exist_ok=True)
    os.environ.pop(PREFIX + "ARTIFACT", None)  # the build imports the service: the copy is meant
    try:
        bento = bentos.build_bentofile(str(ROOT / "bentofile.yaml"), build_ctx=str(ROOT))
    except BentoMLException as error:
        raise UserError(f"BentoML cannot build from {ROOT / 'bentofile.yaml'}: {error}") from error
    return str(bento.tag)


def main() -> None:
    """Prints the tag of the Bento that the command line asks for."""
    wanted = tyro.cli(Wanted, prog=cli.program("serving.bento"), description=__doc__)
    if wanted.runtime not in (None, RUNTIME):
        raise UserError(f"runtime is {wanted.runtime!r}: a Bento holds {RUNTIME} and no other")
    selection = select(wanted, Settings.from_environment())
    settings = Settings(artifact=selection.artifact, runtime=RUNTIME)
    artifact = open_artifact(settings.artifact)
    with open_runtime(
        settings.runtime, artifact, threads=settings.call_threads
    ):  # a Bento that cannot start is of no use
        pass
    print(f"packing {selection.artifact} to run with {RUNTIME}", file=sys.stderr)
    print(build(artifact))


if __name__ == "__main__":
    cli.run(main)
