"""The list of paths: what answers each, and who may ask. What is not listed is not there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """One path and method. It needs the token, if one is set, unless it says ``public``.

    Attributes:
        path: as the server sees it, without :attr:`Settings.root_path`.
        handler: answers its requests; None where BentoML does.
        method: GET goes with HEAD.
        public: whether everybody may ask.
        schema: its OpenAPI operation; None keeps it out of the document.
    """

    path: str
    handler: Handler | None = None
    method: str = "GET"
    public: bool = False
    schema: dict[str, Any] | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        """Returns the methods that the path takes."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)


def bento_routes(schemas: dict[str, dict[str, Any]]) -> list[Route]:
    """Returns the routes that BentoML answers; ``schemas`` holds the operations of some."""
    swagger = [f"/static_content/swagger-ui{name}" for name in (".css", "-bundle.js")]
    public = ["/healthz", "/livez", "/readyz", *swagger]
    return [
        *(Route(path, public=True, schema=schemas.get(path)) for path in public),
        *(Route(path) for path in ("/schema.json", "/docs.json")),
    ]
