from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artifact.artifact import Artifact
from bench.load.http_client import Address
from bench.load.measure import ask_server, find_artifact
from bench.load.record import Served
from core.errors import UserError

Artifacts = Callable[..., Artifact]
Serve = Callable[..., Address]
Reply = Callable[..., bytes]


def served(artifact: Artifact) -> Served:
    return Served(
        model=artifact.model,
        data=artifact.data,
        precision=artifact.precision,
        runtime="ort-cpu",
        sha256s=artifact.sha256s,
    )


def test_a_server_says_what_it_serves(serve: Serve, reply: Reply, make_artifact: Artifacts) -> None:
    facts = dataclasses.asdict(served(make_artifact()))

    async def handler(head: bytes, body: bytes) -> bytes:
        assert head.startswith(b"GET /model HTTP/1.1\r\n")
        if b"Bearer key" not in head:
            return reply(401)
        return reply(200, json.dumps({**facts, "labels": ["a", "b"]}).encode())

    address = serve(handler)
    assert ask_server(address, "key") == Served(**facts)
    with pytest.raises(UserError, match=r"answered with 401, not 200; set POCKETNETS_TOKEN"):
        ask_server(address)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ({"model": "x"}, "/model: data: Field required; load needs a server of make serve"),
        ([], "/model: .*; load needs a server of make serve"),
    ],
)
def test_another_server_is_refused(serve: Serve, reply: Reply, answer: Any, line: str) -> None:
    async def handler(head: bytes, body: bytes) -> bytes:
        return reply(200, json.dumps(answer).encode())

    with pytest.raises(UserError, match=line):
        ask_server(serve(handler))


def test_a_server_that_is_not_there_is_one_line() -> None:
    with pytest.raises(UserError, match="nobody listens there; start the server with: make serve"):
        ask_server(Address("127.0.0.1", 1, "/"))


def test_the_artifact_is_found_by_its_files(tmp_path: Path, make_artifact: Artifacts) -> None:
    artifact = make_artifact()
    make_artifact(network="other-toy")  # of the same files
    folder = tmp_path / "artifacts"
    assert find_artifact(served(artifact), folder).path == artifact.path
    assert find_artifact(served(artifact), tmp_path / "none", artifact.path) == artifact
    gone = dataclasses.replace(served(artifact), sha256s={"model.onnx": "0" * 64})
    with pytest.raises(UserError, match="is not here, and the in-process limit needs it"):
        find_artifact(gone, folder)
    with pytest.raises(UserError, match="or with other files; name the folder that is served"):
        find_artifact(gone, folder, artifact.path)
