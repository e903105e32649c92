"""``pocketnets push ARTIFACT [hf://OWNER/NAME | mlflow://NAME]``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from artifact.artifact import MANIFEST, Artifact
from artifact.formats import CORE_ML_PACKAGE
from core.errors import UserError

_HUB = re.compile(r"hf://([\w.-]+/[\w.-]+)", re.ASCII)
_MLFLOW = re.compile(r"mlflow://([\w. -]+)", re.ASCII)
_WHAT = (
    "Folders of artifacts of one network, or the folder that holds them, and then where to: "
    "hf://OWNER/NAME, a repository of the Hugging Face hub, or mlflow://NAME, a model in MLflow's "
    "registry at MLFLOW_TRACKING_URI. Left out: BentoML's model store on this machine."
)


@dataclass(frozen=True)
class Push:
    """Copy artifacts into BentoML's model store, or to a model hub or MLflow's registry.

    With each artifact go its manifest, its model card and the names of its classes.
    """

    what: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(help=_WHAT)]
    public: bool = False
    """hf://: the repository is one that all can see; a new one is private otherwise."""

    def __call__(self) -> None:
        """Prints what changed, and on the last line where it is."""
        *folders, last = self.what or ("",)
        address = "://" in last
        if not address:
            folders.append(last)
        if not any(folders):
            raise UserError(
                "nothing to push: name the folder of an artifact, such as "
                "artifacts/mobilenet_v3_large-digits/onnx-int8"
            )
        if not address and len(folders) > 1 and not Path(last).exists():
            raise UserError(
                f"{last}: no folder of an artifact is there, and a target is hf://OWNER/NAME or "
                "mlflow://NAME; left out, it is the model store here"
            )
        artifacts = [each for folder in folders for each in artifacts_in(Path(folder))]
        if hub := _HUB.fullmatch(last):
            _push_to_hub(artifacts, hub[1], self.public)
            return
        if self.public:
            raise UserError("--public is for a repository of the hub: hf://OWNER/NAME")
        if registry := _MLFLOW.fullmatch(last):
            _push_to_registry(artifacts, registry[1])
        elif address:
            raise UserError(f"{last}: it must be hf://OWNER/NAME or mlflow://NAME")
        else:
            _push_to_bento(artifacts)


def artifacts_in(folder: Path) -> list[Artifact]:
    """Returns the artifact in ``folder``, or all those in the folders in it, with files checked.

    Raises:
        UserError: there is none, or one is damaged.
    """
    inside = sorted(each.parent for each in folder.glob(f"*/{MANIFEST}"))
    inside = [
        path for path in inside if not path.name.startswith(".") and path.name != CORE_ML_PACKAGE
    ]
    if (folder / MANIFEST).exists() or not inside:
        return [Artifact.load(folder)]
    return [Artifact.load(path) for path in inside]


def _push_to_hub(artifacts: Sequence[Artifact], repo: str, public: bool) -> None:
    from export.push.hub import push_to_hub

    pushed = push_to_hub(artifacts, repo, public=public)
    kind = "private" if pushed.private else "public"
    if pushed.changes:
        print(f"pushed to hf://{repo} ({kind}): {pushed.changes}")
    else:
        print(f"hf://{repo} ({kind}) has all of it already: {pushed.changes}")
    print(pushed.address)


def _push_to_registry(artifacts: Sequence[Artifact], name: str) -> None:
    from export.push.registry import push_to_registry

    pushed = push_to_registry(artifacts, name)
    if pushed.changes:
        print(f"registered as version {pushed.version} of {name}: {pushed.changes}")
    else:
        print(f"version {pushed.version} of {name} is the same: {pushed.changes}")
    print(f"models:/{name}/{pushed.version}")


def _push_to_bento(artifacts: Sequence[Artifact]) -> None:
    from export.push.bento import push

    for artifact in artifacts:
        pushed = push(artifact)
        print(pushed.tag if pushed.new else f"{pushed.tag} was there already")
        print(pushed.path)
