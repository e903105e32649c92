"""Routes, and the router that matches requests to them and checks the token.

Paths that are not listed as a route give 404.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, NamedTuple

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import closest
from serving.access_log import AccessLog, audit
from serving.answers import Error
from serving.errors import Refusal, failure
from serving.metrics import OTHER, count
from serving.settings import Settings
from serving.tokens import Tokens

Handler = Callable[[Request], Awaitable[Response]]

_PARAMETER = re.compile(r"\{(\w+)\}")
_NO_MODEL = ("", "")


class Reply(NamedTuple):
    """A response, as described in the OpenAPI document.

    Attributes:
        text: a text that says when it is returned.
        type: type of its JSON; str means plain text.
        example: an example, ready for JSON.
        headers: type of each header, with a description.
    """

    text: str
    type: Any
    example: Any = None
    headers: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Route:
    """A path and method. It requires the token, if one is set, unless it is ``public``.

    The other attributes are for the OpenAPI document, with types that pydantic can describe.

    Attributes:
        path: path without :attr:`Settings.root_path`; ``{name}`` stands for any name.
        handler: handles its requests; None if BentoML does.
        method: HTTP method; GET includes HEAD.
        public: whether no token is required.
        admin: whether a named token must be an administrator's, and each request leaves a line.
        query: type of each query parameter; others are refused. None allows any.
        summary: one line; without it the route is not in the document.
        takes: a text that describes the body.
        body: type of the body by content type; empty if there is no body.
        body_required: whether a request without a body is refused.
        examples: examples of the body, by content type.
        replies: responses by HTTP status; 401 is implied.
    """

    path: str
    handler: Handler | None = None
    method: str = "GET"
    public: bool = False
    admin: bool = False
    query: Mapping[str, Any] | None = field(default_factory=dict)
    summary: str = ""
    takes: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)
    body_required: bool = True
    examples: Mapping[str, Any] = field(default_factory=dict)
    replies: Mapping[int, Reply] = field(default_factory=dict)

    @property
    def parameters(self) -> list[str]:
        """Returns the names of the parameters in the path."""
        return _PARAMETER.findall(self.path)

    @property
    def pattern(self) -> re.Pattern[str]:
        """Returns a pattern of the paths; a parameter is anything without a ``/``."""
        return re.compile(_PARAMETER.sub(r"(?P<\1>[^/]+)", self.path))

    @property
    def methods(self) -> tuple[str, ...]:
        """Returns the allowed methods."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; an unexpected exception is raised again, for the log.

        It takes less than half the time of a Starlette application around the handler.
        """
        assert self.handler is not None
        request = Request(scope, receive)
        try:
            if scope.get("query_string"):
                self._check_query(request)
            response = await self.handler(request)
        except Refusal as refusal:
            response = refusal.response(scope)
        except Exception:
            await failure()(scope, receive, send)
            raise
        await response(scope, receive, send)

    def _check_query(self, request: Request) -> None:
        if self.query is None:
            return
        names = [name for name, _ in request.query_params.multi_items()]
        for name in names:
            if name not in self.query:
                allowed = closest(name, self.query) if self.query else f"{self.path} takes none"
                detail = f"unknown query parameter {reprlib.repr(name)}: {allowed}"
                raise Refusal(400, "bad_query", detail)
            if names.count(name) > 1:
                raise Refusal(400, "bad_query", f"the query parameter {name!r} comes twice")


def bento_routes() -> list[Route]:
    """Returns the routes that BentoML handles."""
    swagger = [f"/static_content/swagger-ui{name}" for name in (".css", "-bundle.js")]
    lives, ready = "The process lives", "The golden batch was reproduced; images are welcome"
    return [
        Route("/healthz", public=True, summary=lives, replies={200: Reply(lives, str)}),
        Route(
            "/readyz",
            public=True,
            summary=ready,
            replies={200: Reply(ready, str), 503: Reply("Not yet", Error)},
        ),
        *(Route(path, public=True) for path in ("/livez", *swagger)),
        *(Route(path) for path in ("/schema.json", "/docs.json")),
    ]


class Router:
    """Passes a request to its route, if it has the token, and counts the responses.

    Our own routes are handled here. BentoML's context, tracing, timeout and log, and Starlette's
    routing, would add about 0.2 ms per request; they are switched off or done here.

    Args:
        app: handles requests for routes without a handler, and the lifespan.
        routes: all routes.
        tokens: those required by routes that are not public; None if none is required.
        root_path: prefix of all paths; paths without it are accepted too, as some proxies strip it.
    """

    def __init__(
        self, app: ASGIApp, routes: Sequence[Route], tokens: Tokens | None, root_path: str = ""
    ) -> None:
        self._app = app
        self._routes = {route.path: route for route in routes if not route.parameters}
        self._patterns = [(route.pattern, route) for route in routes if route.parameters]
        self._tokens = tokens if tokens and tokens.required else None
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles the request, or passes it on to ``app``."""
        if scope["type"] == "websocket":  # there are no such routes
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if self._root_path and path.startswith(self._root_path + "/"):
            path = path.removeprefix(self._root_path)
        route = self._routes.get(path) or self._match(path, scope)
        answer: ASGIApp
        if route is None and (location := self._moved(path)):
            answer = _redirect(scope, location)
        elif self._tokens and (refused := _check(self._tokens, route, scope)):
            answer = refused
        elif route is None:
            answer = _not_found(scope, self._root_path)
        elif scope["method"] not in route.methods:
            answer = _wrong_method(scope, route)
        elif route.handler is None:  # not counted: health checks come every second
            await _in_json(self._app, {**scope, "path": path, "root_path": ""}, receive, send)
            return
        else:
            answer = route.answer

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                model = scope.get("model", _NO_MODEL)
                count(route.path if route else OTHER, message["status"], model)
                if route and route.admin:
                    audit(scope, message["status"])
            await send(message)

        await answer(scope, receive, counted)

    def _match(self, path: str, scope: Scope) -> Route | None:
        """Returns the route whose pattern fits; ``scope`` gets what its parameters stand for."""
        for pattern, route in self._patterns:
            if found := pattern.fullmatch(path):
                scope["path_params"] = found.groupdict()
                return route
        return None

    def _moved(self, path: str) -> str | None:
        """Returns a relative redirect for a path that differs from a route's; None if none does.

        It is relative because only proxies know the client's scheme, host and prefix.
        """
        name = path.rstrip("/").rpartition("/")[2]
        if self._root_path and path == self._root_path:
            return f"{name}/"
        return f"../{name}" if path.endswith("/") and path[:-1] in self._routes else None


class Cors(CORSMiddleware):
    """Starlette's CORS middleware, with refusals as our JSON."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Returns the response to a CORS preflight request."""
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        reason = bytes(response.body).decode()
        detail = f"{reason}; POCKETNETS_CORS_ORIGINS lists the origins that may call"
        return JSONResponse(Refusal(response.status_code, "cors", detail).body, 400)


def middleware(
    settings: Settings, routes: Sequence[Route], tokens: Tokens, outer: Sequence[Middleware] = ()
) -> list[Middleware]:
    """Returns the middleware of an application with ``routes``, the outermost first.

    Args:
        settings: the prefix of paths, the log, and who may call from pages.
        routes: those that it answers.
        tokens: whose requests it answers.
        outer: middleware around it.
    """
    router = Middleware(Router, routes=routes, tokens=tokens, root_path=settings.root_path)
    outer = list(outer)
    if settings.access_log == "json":
        outer.append(Middleware(AccessLog))
    if not settings.cors_origins:
        return [*outer, router]
    cors = Middleware(
        Cors,
        allow_origins=settings.cors_origins,
        allow_methods=sorted({method for route in routes for method in route.methods}),
        allow_headers=["authorization", "content-type"],
        expose_headers=["retry-after", "server-timing"],
    )
    return [*outer, cors, router]


def wrap(app: ASGIApp, layers: Sequence[Middleware]) -> ASGIApp:
    """Returns ``app`` inside ``layers``, the first of them outermost."""
    for layer, arguments, options in reversed(layers):
        app = layer(app, *arguments, **options)
    return app


def _redirect(scope: Scope, location: str) -> Response:
    query = scope["query_string"].decode("latin-1")
    return RedirectResponse(f"{location}?{query}" if query else location)


def _check(tokens: Tokens, route: Route | None, scope: Scope) -> Response | None:
    """Returns the refusal of a request by its token; None if it may go on."""
    if route and route.public:
        return None
    given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    token = tokens.find(given)
    if token is None:
        headers = {"www-authenticate": "Bearer"}
        detail = "send Authorization: Bearer <token>"
        return Refusal(401, "unauthorized", detail, headers).response(scope)
    scope["token"] = token.name
    if route and route.admin and not token.admin:
        detail = f"{token.name}'s token may not change the models; one made with --admin may"
        return Refusal(403, "not_admin", detail).response(scope)
    if seconds := math.ceil(tokens.wait(token)):
        detail = (
            f"{token.name}'s token allows {token.per_minute} requests a minute; try again in "
            f"{seconds} s"
        )
        return Refusal(429, "rate_limit", detail, {"retry-after": str(seconds)}).response(scope)
    return None


def _not_found(scope: Scope, root_path: str) -> Response:
    detail = f"{scope['method']} {scope['path'][:80]!r}: no such path; see {root_path}/docs"
    return Refusal(404, "not_found", detail).response(scope)


def _wrong_method(scope: Scope, route: Route) -> Response:
    detail = f"{scope['method']} {route.path}: send {route.method}"
    headers = {"allow": ", ".join(route.methods)}
    return Refusal(405, "method_not_allowed", detail, headers).response(scope)


async def _in_json(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Lets ``app`` handle the request; replaces its error responses by our JSON."""
    status: int | None = None

    async def checked(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        if status is not None and status < 400:
            await send(message)

    try:
        await app(scope, receive, checked)
    except Exception:
        status = status or 500
        raise
    finally:
        if status is not None and status >= 400:
            await _failure(scope, status)(scope, receive, send)


def _failure(scope: Scope, status: int) -> Response:
    if status == 500:
        return failure()
    phrase = HTTPStatus(status).phrase
    detail = f"{scope['method']} {scope['path']}: {phrase}"
    return Refusal(status, phrase.lower().replace(" ", "_"), detail).response(scope)
