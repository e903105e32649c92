"""What every request passes: the count of its status, and the token."""

from __future__ import annotations

import functools
import hmac

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.metrics import REQUESTS

GUARDED = ("/predict", "/predict_batch", "/model")

_counter = functools.cache(lambda path, status: REQUESTS.labels(path, str(status)))


class Counted:
    """Counts the answers of :data:`GUARDED` by path and status."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on and counts its answer."""
        if scope["type"] != "http" or scope["path"] not in GUARDED:
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                _counter(scope["path"], message["status"]).inc()
            await send(message)

        await self._app(scope, receive, counted)


class Guarded:
    """Asks for the token, if there is one; health, metrics and the page need none."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, if nothing is against it."""
        if scope["type"] == "http" and self._expected and scope["path"] in GUARDED:
            given = Headers(scope=scope).get("authorization", "").encode("latin-1")
            if not hmac.compare_digest(given, self._expected):
                response = JSONResponse(
                    {"error": "unauthorized", "detail": "send Authorization: Bearer <token>"},
                    401,
                    {"www-authenticate": "Bearer"},
                )
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)
