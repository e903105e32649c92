from __future__ import annotations

import builtins
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import format_trace_id
from starlette.testclient import TestClient

from artifact.artifact import Artifact
from core.errors import UserError
from serving import state, supervisor, tracing
from serving.app import create_app
from serving.predictor import Predictor
from serving.routes import wrap
from serving.settings import Settings
from serving.starting import start
from serving.tracing import traced

Encoded = Callable[..., bytes]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Kept:
    """An exporter that keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


def test_a_span_has_the_model_and_its_stages_and_is_part_of_the_clients_trace(
    artifact_path: Path, encoded: Encoded
) -> None:
    exporter = Kept()
    layers = traced(exporter)
    settings = Settings(artifact=artifact_path, threads=1)
    with Predictor(settings, Artifact.load(artifact_path)) as predictor:
        client = TestClient(wrap(create_app(predictor), layers))
        parent = f"00-{TRACE}-00f067aa0ba902b7-01"
        answer = client.post("/predict", content=encoded(), headers={"traceparent": parent})
        assert client.get("/metrics").status_code == 200
        assert client.post("/predict", content=b"x").status_code == 400
    layers[0].kwargs["tracer_provider"].shutdown()  # sends what waits
    good, bad = exporter.spans
    assert format_trace_id(good.context.trace_id) == TRACE
    stages = answer.json()["timings_ms"]
    assert {k: v for k, v in good.attributes.items() if k.startswith("pocketnets.")} == {
        "pocketnets.model": "channels-colours",
        "pocketnets.version": "onnx-fp32",
        **{f"pocketnets.{stage}_ms": ms for stage, ms in stages.items()},
    }
    assert good.resource.attributes["service.name"] == "pocketnets"
    assert "pocketnets.decode_ms" not in bad.attributes


def test_without_the_extra_the_start_ends_in_one_line(
    artifact_path: Path,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import_module = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("opentelemetry.exporter"):
            raise ImportError(name)
        return import_module(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    settings = Settings(artifact=artifact_path, threads=1, tracing=True)
    predictor = Predictor(settings, Artifact.load(artifact_path))
    with pytest.raises(UserError, match="tracing"):
        create_app(predictor)
    monkeypatch.setenv(state.FOLDER, "")  # restored afterwards
    monkeypatch.setattr(supervisor, "supervise", lambda *_: 0)
    with pytest.raises(UserError, match="tracing"):
        start(dataclasses.replace(settings, port=port), "by the test")
    assert capsys.readouterr().err == ""  # nothing says that it serves


def test_it_is_off_by_default(artifact_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "exporter_class", lambda: pytest.fail("traced"))
    create_app(Predictor(Settings(artifact=artifact_path), Artifact.load(artifact_path)))
