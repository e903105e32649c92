from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Scope

from serving.errors import Refusal
from serving.metrics import REQUESTS
from serving.routes import Route, Router, bento_routes


def send(app: ASGIApp, **scope: Any) -> list[Message]:
    """Returns what ``app`` sends in answer to a request."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def collect(message: Message) -> None:
        sent.append(message)

    defaults: Scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    try:
        asyncio.run(app({**defaults, **scope}, receive, collect))  # type: ignore[arg-type]
    except LookupError:
        sent.append({"type": "raised"})
    return sent


async def ours(request: Request) -> Response:
    return PlainTextResponse("ours")


ROUTES = [Route("/predict", ours, method="POST"), *bento_routes()]


@pytest.mark.parametrize(
    ("scope", "who"),
    [
        ({"path": "/predict"}, b"ours"),
        ({"path": "/readyz", "method": "GET"}, b"service"),
        ({"path": "/readyz", "method": "HEAD"}, b"service"),
    ],
)
def test_images_take_the_short_way(scope: dict[str, Any], who: bytes) -> None:
    router = Router(PlainTextResponse("service"), ROUTES, None)
    assert send(router, **scope)[1]["body"] == who


def test_the_lifespan_is_the_services() -> None:
    seen: list[str] = []

    async def service(scope: Scope, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    async def start() -> None:
        await Router(service, ROUTES, None)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]

    asyncio.run(start())
    assert seen == ["lifespan"]


def test_answers_are_counted_by_path_and_all_others_together() -> None:
    router = Router(PlainTextResponse("service"), ROUTES, None)
    asked = [("POST", "/predict"), ("GET", "/predict"), ("GET", "/a"), ("GET", "/b")]
    counts = [("/predict", 200), ("/predict", 405), ("other", 404), ("/readyz", 200)]

    def counted() -> list[float]:
        return [REQUESTS.labels(path, str(status), "", "")._value.get() for path, status in counts]

    before = counted()
    for method, path in [*asked, ("GET", "/readyz")]:
        send(router, method=method, path=path, query_string=b"")
    assert [after - was for after, was in zip(counted(), before, strict=True)] == [1, 1, 2, 0]


def test_what_a_handler_raises_is_answered() -> None:
    async def refuse(request: Request) -> Response:
        raise Refusal(429, "busy", "try again", {"retry-after": "1"})

    async def fail(request: Request) -> Response:
        raise LookupError("/a/path")

    start, answer = send(Route("/", refuse).answer)
    assert start["status"] == 429
    assert (b"retry-after", b"1") in start["headers"]
    assert answer["body"] == b'{"error":"busy","detail":"try again"}'
    start, answer, raised = send(Route("/", fail).answer)
    assert start["status"] == 500
    assert b"/a/path" not in answer["body"]
    assert json.loads(answer["body"])["error"] == "internal"
    assert raised == {"type": "raised"}  # for the server's log
