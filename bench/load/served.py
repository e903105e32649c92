"""Finds which artifact a running server answers with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from artifact.artifact import Artifact
from artifact.records import Precision
from artifact.store import stored_artifacts
from bench.load.http_client import Address, Answer, Connection, NoAnswer, make_request
from bench.load.loops import run_loop
from core.errors import UserError
from core.record_file import parse


@dataclass(frozen=True, kw_only=True)
class Served:
    """What a server says of itself at ``/model``, as far as load needs to know.

    Attributes:
        model, data, precision: of its artifact.
        runtime: what executes it.
        sha256s: file name to digest, of the artifact's files.
    """

    model: str
    data: str
    precision: Precision
    runtime: str
    sha256s: dict[str, str]

    @property
    def name(self) -> str:
        """Returns it in words."""
        return f"{self.model} ({self.data}, {self.precision}, {self.runtime})"


def ask_server(address: Address, token: str | None = None) -> Served:
    """Returns what the server at ``address`` answers with.

    Raises:
        UserError: nobody listens there, or it is no server of ours.
    """
    where = address.with_path("/model")

    async def main() -> Answer:
        connection = Connection(where)
        try:
            return await connection.send(make_request(where, token=token))
        finally:
            connection.close()

    try:
        answer = run_loop(main())
    except NoAnswer as error:
        gone = "nobody listens there; start the server with: make serve"
        raise UserError(f"{where.url}: {gone if str(error) == 'refused' else error}") from None
    if answer.status != 200:
        key = "; set POCKETNETS_TOKEN as the server has it" if answer.status == 401 else ""
        raise UserError(f"{where.url} is answered with {answer.status}, not 200{key}")
    return parse(Served, answer.body, where.url, remedy="load needs a server of make serve")


def find_artifact(served: Served, artifacts: Path, folder: Path | None = None) -> Artifact:
    """Returns the artifact that ``served`` answers with, every file of it checked.

    Args:
        served: what the server says of itself.
        artifacts: where to look for it.
        folder: the artifact, if not below ``artifacts``.

    Raises:
        UserError: it is not there, or ``folder`` holds another one.
    """
    if folder is not None:
        artifact = Artifact.load(folder)
        if not _is_served(artifact, served):
            raise UserError(
                f"{folder}: {artifact.model} ({artifact.data}, {artifact.precision}), not the "
                f"server's {served.name}, or with other files; name the folder that is served"
            )
        return artifact
    for one in stored_artifacts(artifacts):
        if one.artifact is not None and _is_served(one.artifact, served):
            return one.artifact
    raise UserError(
        f"{artifacts}: the server's {served.name} is not here, and the in-process limit needs it; "
        "name its folder with --artifact"
    )


def _is_served(artifact: Artifact, served: Served) -> bool:
    names = (artifact.model, artifact.data, artifact.precision)
    return (*names, artifact.sha256s) == (
        served.model,
        served.data,
        served.precision,
        served.sha256s,
    )
