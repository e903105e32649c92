"""Errors as JSON: requests that are refused, and requests that fail."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response
from starlette.types import Scope


class Refusal(Exception):
    """A request that gets an error answer: HTTP status, short code and one line of detail."""

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
        """Returns what the client is told, ready for JSON."""
        return {"error": self.code, "detail": self.detail}

    def response(self, scope: Scope) -> Response:
        """Returns the answer to the request of ``scope``.

        One that asked whether to send its body may send it after a refusal or not (RFC 9110,
        10.1.1): the connection can carry no other.
        """
        headers = dict(self.headers or {})
        if any(name == b"expect" for name, _ in scope["headers"]):
            headers["connection"] = "close"
        return JSONResponse(self.body, self.status, headers)


def too_large(max_bytes: int) -> Refusal:
    """Returns the refusal of an upload that is too large."""
    return Refusal(413, "too_large", f"the upload exceeds the limit of {max_bytes} bytes")


def failure() -> Response:
    """Returns the answer to a request that failed for no fault of its own."""
    return JSONResponse(
        {"error": "internal", "detail": "the service failed; its log says why"}, 500
    )
