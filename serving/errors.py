"""Errors as JSON: requests that are refused, and requests that fail."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response
from starlette.types import Scope

BUSY_S = 1  # Retry-After: a full queue is processed in less


class Refusal(Exception):
    """A request that is refused, with HTTP status, short code and one line of detail."""

    def __init__(
        self, status: int, code: str, detail: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers

    @property
    def body(self) -> dict[str, str]:
        """Returns the body of the response, ready for JSON."""
        return {"error": self.code, "detail": self.detail}

    def response(self, scope: Scope) -> Response:
        """Returns the response to the request of ``scope``.

        After ``Expect: 100-continue`` a client may or may not send its body (RFC 9110, 10.1.1), so
        the connection cannot be reused.
        """
        headers = dict(self.headers or {})
        if any(name == b"expect" for name, _ in scope["headers"]):
            headers["connection"] = "close"
        return JSONResponse(self.body, self.status, headers)


def too_large(max_bytes: int) -> Refusal:
    """Returns the refusal of an upload that is too large."""
    return Refusal(413, "too_large", f"the upload exceeds the limit of {max_bytes} bytes")


def busy() -> Refusal:
    """Returns the refusal of a request that does not fit into the queue."""
    return Refusal(
        429,
        "busy",
        f"the queue is full; try again in {BUSY_S} s",
        headers={"retry-after": str(BUSY_S)},
    )


def failure() -> Response:
    """Returns the response to a request that failed because of an error in the server.

    The server closes the connection once it has logged the error: a client must not use it again.
    """
    return JSONResponse(
        {"error": "internal", "detail": "the service failed; its log says why"},
        500,
        {"connection": "close"},
    )
