from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from artifact.artifact import Artifact
from serving.app import create_app
from serving.predictor import Predictor
from serving.settings import Settings

Encoded = Callable[..., bytes]


@pytest.fixture
def client(artifact_path: Path) -> Iterator[Callable[..., TestClient]]:
    with ExitStack() as stack:

        def start(**settings: Any) -> TestClient:
            chosen = Settings(artifact=artifact_path, threads=1, **settings)
            predictor = stack.enter_context(Predictor(chosen, Artifact.load(artifact_path)))
            return TestClient(create_app(predictor), raise_server_exceptions=False)

        yield start


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_says_who_asked_what_and_how_it_ended(
    client: Callable[..., TestClient], encoded: Encoded, capsys: pytest.CaptureFixture[str]
) -> None:
    service = client(access_log="json", token="s3cret")
    headers = {"authorization": "Bearer s3cret", "x-request-id": "trace:42"}
    answer = service.post("/predict?top_k=1", content=encoded(), headers=headers)
    refused = service.get("/model", headers={"x-request-id": "bad\tid"})
    first, second = lines(capsys)
    assert first | {"time": "", "ms": 0, "client": ""} == {
        "time": "",
        "event": "request",
        "request_id": "trace:42",
        "client": "",
        "token": "token",
        "method": "POST",
        "path": "/predict",
        "model": first["model"],
        "status": 200,
        "ms": 0,
        "bytes": len(answer.content),
    }
    assert answer.headers["x-request-id"] == "trace:42"
    assert (second["status"], second["token"]) == (401, None)
    assert second["request_id"] == refused.headers["x-request-id"]
    assert len(second["request_id"]) == 32
    assert "s3cret" not in json.dumps([first, second])


def test_without_it_there_is_no_line_and_no_header(
    client: Callable[..., TestClient], encoded: Encoded, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = client().post("/predict", content=encoded(), headers={"x-request-id": "a"})
    assert "x-request-id" not in answer.headers
    assert lines(capsys) == []
