"""Types of the requests and responses of the routes ``/models``."""

from __future__ import annotations

from typing import Annotated, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

_CLOSED = ConfigDict(extra="forbid")
_Bytes = Annotated[int, Field(ge=0)]


@with_config(_CLOSED)
class ModelEntry(TypedDict):
    """A loaded model."""

    name: str
    version: str
    current: Annotated[bool, Field(description="Whether it answers for its name")]
    default: Annotated[bool, Field(description="Whether it answers paths that name no model")]
    canary: Annotated[float, Field(ge=0, le=1, description="Share of these that it answers")]
    shadow: Annotated[float, Field(ge=0, le=1, description="Share of these that it is asked, too")]
    model: Annotated[str, Field(description="Name of the network")]
    data: str
    precision: str
    format: str
    runtime: str
    labels: Annotated[int, Field(ge=1)]
    bytes: Annotated[_Bytes, Field(description="Memory that it takes in this worker")]


@with_config(_CLOSED)
class Memory(TypedDict):
    """Memory of the worker that answers, in bytes: of its models together, and of the process."""

    models: _Bytes
    limit: _Bytes
    process: _Bytes


@with_config(_CLOSED)
class ModelList(TypedDict):
    """The loaded models."""

    default: str
    revision: Annotated[int, Field(ge=0, description="How many changes led to this list")]
    models: Annotated[list[ModelEntry], Field(min_length=1)]
    failed: Annotated[
        dict[str, str], Field(description="Why models did not come in this worker, by name:version")
    ]
    memory: Memory


@with_config(_CLOSED)
class WorkerRevision(TypedDict):
    """A worker, and the revision of the list that it serves."""

    pid: int
    revision: int


@with_config(_CLOSED)
class Changed(ModelList):
    """The models after a change, and the workers that have followed."""

    workers: list[WorkerRevision]


@with_config(_CLOSED)
class LoadRequest(TypedDict):
    """Which version is loaded, and whether it answers for its name from then on."""

    version: NotRequired[Annotated[str, Field(min_length=1, max_length=128)]]
    current: NotRequired[bool]


@with_config(_CLOSED)
class TrialRequest(TypedDict):
    """Which version, and for which share of the requests that name no model; 0 ends the trial."""

    version: NotRequired[Annotated[str, Field(min_length=1, max_length=128)]]
    share: Annotated[float, Field(ge=0, le=1)]


@with_config(_CLOSED)
class VersionRequest(TypedDict):
    """Which version; without it the one that answers."""

    version: NotRequired[Annotated[str, Field(min_length=1, max_length=128)]]
