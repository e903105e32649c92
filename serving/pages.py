"""The pages for people, ``/`` and ``/docs``: what lies in ``page/``, read once, from memory.

They name all else relative to themselves, so they work behind any prefix.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from serving.routes import Route

FOLDER = Path(__file__).resolve().parent / "page"
PLACES = {"index.html": "/", "docs.html": "/docs", "favicon.ico": "/favicon.ico"}
TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".ico": "image/vnd.microsoft.icon",
}

# The page loads its own files and asks its own server. Trusted types turn any attempt to write
# markup from a script into an error, so that no label can become an element.
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src blob: data:",  # the chosen image; the icon
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
# Swagger UI, which BentoML brings, sets styles and writes markup from our own OpenAPI document.
DOCS_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Cache-Control": "no-cache",  # kept, but compared by ETag: a new version is seen at once
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def page_routes() -> list[Route]:
    """Returns the routes of both pages, and ``/page/<name>`` for each file they load."""
    files = sorted(path for path in FOLDER.iterdir() if path.suffix in TYPES)
    return [_route(PLACES.get(path.name, f"/page/{path.name}"), path) for path in files]


def _route(where: str, path: Path) -> Route:
    content = path.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**HEADERS, "ETag": tag}
    if where == "/docs":
        headers["Content-Security-Policy"] = DOCS_POLICY
    kind = TYPES[path.suffix]

    async def answer(request: Request) -> Response:
        if _is_known(request.headers, tag):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=kind)

    return Route(where, answer, public=True, query=None)


def _is_known(headers: Headers, tag: str) -> bool:
    """Returns whether the client has this version (RFC 9110, 13.1.2: weak tags compare equal)."""
    known = (
        each.strip().removeprefix("W/") for each in headers.get("if-none-match", "").split(",")
    )
    return any(each in (tag, "*") for each in known)
