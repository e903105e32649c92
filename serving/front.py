"""The way of an image to our application that does not lead through BentoML's."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send


class Front:
    """Hands a POST to one of our paths to what answers it, and all else to the service.

    The service would pass it on, after BentoML's context, tracing, timeout and log, and Starlette's
    routing: some 0.2 ms a request, beside inference. None of these is in use: their work is done
    by ours, or they are switched off.

    Args:
        posts: path to what answers.
        service: BentoML's application.
    """

    def __init__(self, posts: Mapping[str, ASGIApp], service: ASGIApp) -> None:
        self._posts = posts
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        app = self._service
        if scope["type"] == "http" and scope["method"] == "POST":
            app = self._posts.get(scope["path"], app)
        await app(scope, receive, send)
