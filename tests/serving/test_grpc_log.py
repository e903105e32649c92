"""What the access log and the metrics say of calls that are refused, or given up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from bare_http2 import connected, head, literal
from grpc_client import SECONDS, Client
from prometheus_client import REGISTRY

from serving import grpc_routes
from serving.frames import MOST_HEADERS
from serving.grpc_messages import SERVICE, message_classes

LIVE = f"/{SERVICE}/ServerLive"
INFER = f"/{SERVICE}/ModelInfer"


def counted(path: str, status: int, model: tuple[str, str] = ("", "")) -> float:
    labels = {"path": path, "status": str(status), "model": model[0], "version": model[1]}
    return REGISTRY.get_sample_value("pocketnets_requests_total", labels) or 0


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize(
    ("block", "status", "code"),
    [
        (head("/x"), 501, "12"),
        (head(LIVE, grpc_timeout="1"), 400, "3"),
        (head(LIVE, grpc_encoding="br"), 501, "12"),
        (head(LIVE, x="v" * (MOST_HEADERS - 300)), 431, "8"),
        (head(LIVE).replace(b"application/grpc", b"application/json"), 415, None),
        (literal(":method", "CONNECT") + literal(":authority", "x"), 415, None),
    ],
)
def test_what_is_no_call_leaves_a_line(
    talk: Callable[..., None],
    port: int,
    capsys: pytest.CaptureFixture[str],
    block: bytes,
    status: int,
    code: str | None,
) -> None:
    before = counted("other", status)

    async def say(client: Client) -> None:
        block_with_id = block + literal("x-request-id", "mine")
        async with connected(port) as bare:
            told = await asyncio.wait_for(bare.answer(bare.send(block_with_id, b"")), SECONDS)
        assert told.get("grpc-status") == code
        assert told.get("x-request-id") == ("mine" if code else None)

    talk(say, access_log="json")
    (line,) = lines(capsys)
    assert (line["request_id"], line["status"]) == ("mine", status)
    assert counted("other", status) == before + 1


@pytest.mark.parametrize(("seconds", "status"), [(0.2, 504), (None, 400)])
def test_a_call_that_is_given_up_was_not_answered(
    talk: Callable[..., None],
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seconds: float | None,
    status: int,
) -> None:
    async def say(client: Client) -> None:
        begun, given_up = asyncio.Event(), asyncio.Event()

        async def answer(served: Any, request: Any, wanted: Any) -> list[Any]:
            begun.set()
            while (await request.receive())["type"] != "http.disconnect":
                pass
            given_up.set()
            return []

        monkeypatch.setattr(grpc_routes, "answer_tensors", answer)
        image = {"name": "image", "datatype": "BYTES", "shape": [1]}
        body = message_classes()["ModelInferRequest"](
            model_name="channels-colours",
            inputs=[{**image, "contents": {"bytes_contents": [b"x"]}}],
        )
        asked = client.channel.unary_unary(INFER)(body.SerializeToString(), timeout=seconds)
        if seconds is None:
            await asyncio.wait_for(begun.wait(), SECONDS)
            asked.cancel()
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await asked
        await asyncio.wait_for(given_up.wait(), SECONDS)

    model = ("channels-colours", "onnx-fp32")
    before = [counted(INFER, each, model) for each in (200, status)]
    talk(say, access_log="json")
    (line,) = lines(capsys)
    assert (line["status"], line["model"]) == (status, ":".join(model))
    after = [counted(INFER, each, model) for each in (200, status)]
    assert after == [before[0], before[1] + 1]
