"""A function from a request to a response, as an application; what it raises is answered, too."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from serving.routes import Handler
from serving.uploads import Refusal


class Endpoint:
    """What a Starlette application makes of a function, in less than half the time."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; an error that nobody foresaw is raised again, for the log."""
        try:
            response = await self._handler(Request(scope, receive))
        except Refusal as refusal:
            response = refuse(refusal, scope)
        except Exception:
            await failure()(scope, receive, send)
            raise
        await response(scope, receive, send)


def failure() -> Response:
    """Returns the answer to a request that failed for no fault of its own."""
    return JSONResponse(
        {"error": "internal", "detail": "the service failed; its log says why"}, 500
    )


def refuse(refusal: Refusal, scope: Scope) -> Response:
    """Returns the answer to a request that is refused.

    One that asked whether to send its body may send it after a refusal or not (RFC 9110, 10.1.1):
    the connection can carry no other.
    """
    headers = dict(refusal.headers or {})
    if any(name == b"expect" for name, _ in scope["headers"]):
        headers["connection"] = "close"
    return JSONResponse(body(refusal), refusal.status, headers)


def body(refusal: Refusal) -> dict[str, str]:
    """Returns what a client is told, ready for JSON."""
    return {"error": refusal.code, "detail": refusal.detail}
