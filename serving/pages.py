"""The HTML pages ``/`` and ``/docs``: the files in ``page/``, read once and kept in memory.

They use relative links only, so they work behind any path prefix.
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

# The page may load only its own files and call only its own server. Trusted types make writing
# markup from scripts an error, so that no label can become an element.
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
# Swagger UI, included in BentoML, sets styles and writes markup from our own OpenAPI document.
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
    "Cache-Control": "no-cache",  # cached, but revalidated by ETag: new versions show at once
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def page_routes() -> list[Route]:
    """Returns the routes of both pages, and ``/page/<name>`` for each file that they load."""
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
    """Returns whether the client has this version (weak comparison, RFC 9110, 13.1.2)."""
    known = (
        each.strip().removeprefix("W/") for each in headers.get("if-none-match", "").split(",")
    )
    return any(each in (tag, "*") for each in known)
