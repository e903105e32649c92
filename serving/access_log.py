"""Lines of JSON on stderr: of each request, if asked, and of each change of the models."""

from __future__ import annotations

import json
import re
import secrets
import sys
import time
from datetime import UTC, datetime
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID = b"x-request-id"
_VALID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


class AccessLog:
    """ASGI middleware that writes a line for each request, and gives each an id.

    A client's ``X-Request-Id`` is taken if it has at most 128 letters, digits and ``._:/+=-``;
    otherwise an id is made. The response has it in the same header.

    Args:
        app: answers the requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, and writes its line when the response is complete."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        identity = _identity(scope)
        scope["request_id"] = identity.decode()
        status, sent = 0, 0

        async def watched(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (REQUEST_ID, identity)]}
            else:
                sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            took = round((time.perf_counter() - began) * 1e3, 3)
            write_line("request", scope, status=status, ms=took, bytes=sent)


def audit(scope: Scope, status: int | None) -> None:
    """Writes a line for a request that changes the models: who asked what, with which result.

    ``status`` is None before the change, of which a killed process could otherwise say nothing.
    ``scope["change"]``, if there is such an entry, has what the request's body said.
    """
    write_line("admin", scope, change=scope.get("change"), status=status)


def write_line(event: str, scope: Scope, **facts: Any) -> None:
    """Writes one line on stderr; the query is left out, as it may hold what is private."""
    client = scope.get("client")
    model = scope.get("model", ("", ""))
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "event": event,
        "request_id": scope.get("request_id"),
        "client": client[0] if client else None,
        "token": scope.get("token"),
        "method": scope["method"],
        "path": scope["path"][:256],
        "model": ":".join(model) if model[0] else None,
        **facts,
    }
    sys.stderr.write(json.dumps(line) + "\n")
    sys.stderr.flush()


def _identity(scope: Scope) -> bytes:
    given = next((value for name, value in scope["headers"] if name == REQUEST_ID), b"")
    return given if _VALID.fullmatch(given) else secrets.token_hex(16).encode()
