"""The list of routes: who may ask what, under which prefix, and what all else gets."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from artifact.artifact import Artifact
from serving.app import create_app
from serving.pages import FOLDER
from serving.predictor import Predictor
from serving.routes import Route, Router, bento_routes, wrap
from serving.settings import Settings
from serving.tokens import Tokens

ROOT = Path(__file__).resolve().parents[2]

# Whoever adds to this list says that everybody may ask.
PUBLIC = {
    *("/", "/docs", "/favicon.ico", "/openapi.json"),
    *(f"/page/{path.name}" for path in FOLDER.iterdir() if path.suffix in (".css", ".js")),
    *("/static_content/swagger-ui.css", "/static_content/swagger-ui-bundle.js"),
    *("/healthz", "/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"),
}
CHANGES = ("/load", "/unload", "/promote", "/canary", "/shadow", "/rollback")
OF_PROTOCOL = ("", "/ready", "/infer")
OF_A_MODEL = ("", "/predict", "/predict_batch")
NEED_THE_TOKEN = {
    *("/predict", "/predict_batch", "/model", "/models", "/schema.json", "/docs.json"),
    *(f"/models/{{name}}{path}" for path in (*OF_A_MODEL, *CHANGES)),
    *(f"/models/{{name}}/versions/{{version}}{path}" for path in OF_A_MODEL),
    *("/v2", *(f"/v2/models/{{name}}{path}" for path in OF_PROTOCOL)),
    *(f"/v2/models/{{name}}/versions/{{version}}{path}" for path in OF_PROTOCOL),
    *("/v2/repository/index", *(f"/v2/repository/models/{{name}}{path}" for path in CHANGES[:2])),
}


def ask(app: ASGIApp, method: str, path: str, **content: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **content)

    return asyncio.run(send())


def check_error(response: httpx.Response, status: int, code: str) -> str:
    """Returns the detail of an error."""
    assert response.status_code == status
    body = response.json()
    assert set(body) == {"error", "detail"}
    assert body["error"] == code
    return str(body["detail"])


@pytest.fixture
def make_app(artifact_path: Path) -> Iterator[Callable[..., ASGIApp]]:
    """Returns a function that returns the application with some settings."""
    with ExitStack() as stack:

        def make(**settings: Any) -> ASGIApp:
            chosen = Settings(artifact=artifact_path, threads=1, **settings)
            predictor = Predictor(chosen, Artifact.load(artifact_path))
            return create_app(stack.enter_context(predictor))

        yield make


# The token ----------------------------------------------------------------------------------------

WALK = """
import asyncio, httpx, json
from starlette.applications import Starlette
from serving.routes import wrap
from serving.service import Pocketnets, app

def paths(routes):
    for route in routes:
        if isinstance(getattr(route, "app", None), Starlette):
            yield from paths(route.app.routes)
        else:
            yield route.path + ("/anything" if hasattr(route, "routes") else "")

async def walk():
    service = Pocketnets.to_asgi()
    (router,) = app.user_middleware
    listed = {route.path: route.method for route in router.kwargs["routes"]}
    for path in paths(service.routes):
        listed.setdefault(path, "GET")
    found = {}
    for whole in (service, wrap(service, app.user_middleware)):
        transport = httpx.ASGITransport(whole, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for path, method in listed.items():
                for known in ({}, {"authorization": "Bearer s3cret"}):
                    status = (await client.request(method, path, headers=known)).status_code
                    found.setdefault(path, []).append(status)
    print(json.dumps(found))

asyncio.run(walk())
"""


def test_all_routes_need_the_token_but_those_listed_here(
    artifact_path: Path, environment: dict[str, str]
) -> None:
    own = {"POCKETNETS_ARTIFACT": str(artifact_path), "POCKETNETS_TOKEN": "s3cret"}
    done = subprocess.run(
        [sys.executable, "-c", WALK],
        cwd=ROOT,
        env={**environment, **own},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])  # under bentoml serve, and under ours
    assert {path for path, statuses in found.items() if 401 not in statuses} == PUBLIC
    closed = {path: statuses for path, statuses in found.items() if path not in PUBLIC}
    assert closed.keys() - NEED_THE_TOKEN == {"/static_content/anything"}
    assert closed.keys() >= NEED_THE_TOKEN
    for path, statuses in closed.items():
        assert [statuses[0], statuses[2]] == [401, 401], path
        assert statuses[1] == statuses[3] != 401, path


def test_a_new_route_needs_the_token_unless_it_says_otherwise() -> None:
    async def answer(request: Request) -> Response:
        return PlainTextResponse("ours")

    routes = [Route("/new", answer), Route("/open", answer, public=True)]
    router = Router(PlainTextResponse("service"), routes, Tokens("s3cret", None))
    bearer = {"authorization": "Bearer s3cret"}
    for path in ("/new", "/new/x", "/elsewhere", "//open", "/OPEN", "/open/x"):
        check_error(ask(router, "GET", path), 401, "unauthorized")
    assert ask(router, "GET", "/open").text == "ours"
    assert ask(router, "GET", "/new", headers=bearer).text == "ours"
    check_error(ask(router, "GET", "/elsewhere", headers=bearer), 404, "not_found")
    two = [("authorization", "Bearer wrong"), ("authorization", "Bearer s3cret")]
    check_error(ask(router, "GET", "/new", headers=two), 401, "unauthorized")


def test_no_websocket_gets_past_the_router() -> None:
    sent: list[Message] = []

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("asked")

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/healthz", "headers": []}
    asyncio.run(Router(service, bento_routes(), None)(scope, receive, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close"}]


# Errors -------------------------------------------------------------------------------------------


def test_what_is_not_there_is_told_as_json(make_app: Callable[..., ASGIApp]) -> None:
    app = make_app(root_path="/classifier")
    detail = check_error(ask(app, "GET", "/nothing"), 404, "not_found")
    assert "/nothing" in detail
    assert "/classifier/docs" in detail
    wrong = ask(app, "PUT", "/healthz")
    check_error(wrong, 405, "method_not_allowed")
    assert wrong.headers["allow"] == "GET, HEAD"
    assert ask(app, "HEAD", "/model").status_code == 200


@pytest.mark.parametrize(
    ("status", "code"), [(503, "service_unavailable"), (404, "not_found"), (500, "internal")]
)
def test_an_error_of_bentoml_becomes_ours(status: int, code: str) -> None:
    router = Router(PlainTextResponse("not JSON", status), bento_routes(), None)
    check_error(ask(router, "GET", "/readyz"), status, code)


@pytest.mark.parametrize("begun", [False, True])
def test_a_failure_of_bentoml_is_raised_again_for_the_log(begun: bool) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        if begun:
            await PlainTextResponse("Internal Server Error", 500)(scope, receive, send)
        raise LookupError

    router = Router(fail, bento_routes(), None)
    check_error(ask(router, "GET", "/readyz"), 500, "internal")
    transport = httpx.ASGITransport(router)

    async def send() -> None:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await client.get("/readyz")

    with pytest.raises(LookupError):
        asyncio.run(send())


@pytest.mark.parametrize(
    ("path", "status"), [("/predict", 415), ("/nothing", 404), ("/healthz", 405)]
)
def test_a_refusal_of_who_asks_first_ends_the_connection(
    make_app: Callable[..., ASGIApp], path: str, status: int
) -> None:
    headers = {"content-encoding": "br", "expect": "100-continue"}
    refused = ask(make_app(), "POST", path, headers=headers)
    assert (refused.status_code, refused.headers["connection"]) == (status, "close")
    del headers["expect"]
    assert "connection" not in ask(make_app(), "POST", path, headers=headers).headers


# Prefixes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/predict/", "../predict"),
        ("/predict/?top_k=2&x=%20", "../predict?top_k=2&x=%20"),
        ("/docs/", "../docs"),
        ("/classifier/predict/", "../predict"),
        ("/classifier", "classifier/"),
        ("/classifier?x", "classifier/?x"),
        ("/page/page.js/", "../page.js"),
    ],
)
def test_redirects_are_relative(make_app: Callable[..., ASGIApp], path: str, location: str) -> None:
    app = make_app(root_path="/classifier", token="s3cret")
    answer = ask(app, "POST", path, headers={"host": "elsewhere", "x-forwarded-proto": "https"})
    assert (answer.status_code, answer.headers["location"]) == (307, location)


@pytest.mark.parametrize("path", ["/predict//", "//predict", "//example.org/", "/classifierx/docs"])
def test_nothing_else_is_redirected(make_app: Callable[..., ASGIApp], path: str) -> None:
    app = make_app(root_path="/classifier")
    check_error(ask(app, "GET", f"http://test{path}"), 404, "not_found")


@pytest.mark.parametrize("prefix", ["", "/tools/classifier"])
def test_a_proxy_may_strip_its_prefix_or_not(
    make_app: Callable[..., ASGIApp], encoded: Callable[..., bytes], prefix: str
) -> None:
    app = make_app(root_path="/tools/classifier", token="s3cret")
    kind = {"content-type": "image/png"}
    bearer = {"authorization": "Bearer s3cret"}
    for path in ("/", "/docs", "/page/page.js", "/favicon.ico"):
        assert ask(app, "GET", prefix + path).status_code == 200
    check_error(ask(app, "POST", f"{prefix}/predict", headers=kind), 401, "unauthorized")
    answer = ask(app, "POST", f"{prefix}/predict", headers=kind | bearer, content=encoded("blue"))
    assert answer.json()["predictions"][0]["label"] == "blue"
    api = ask(app, "GET", f"{prefix}/openapi.json").json()
    assert api["servers"] == [{"url": "/tools/classifier"}]
    assert set(api["paths"]) == {route.path for route in routes(app) if route.summary}


def routes(app: Any) -> list[Route]:
    (router,) = app.user_middleware
    return list(router.kwargs["routes"])


def test_bentoml_sees_no_prefix() -> None:
    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(scope["root_path"] + scope["path"])(scope, receive, send)

    router = Router(service, bento_routes(), None, "/classifier")
    assert ask(router, "GET", "/classifier/readyz").text == "/readyz"


# Other origins ------------------------------------------------------------------------------------

ORIGIN = "https://app.example.com"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


def test_pages_of_others_may_not_ask_by_default(make_app: Callable[..., ASGIApp]) -> None:
    app = make_app()
    answer = ask(app, "GET", "/model", headers={"origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    refused = ask(app, "OPTIONS", "/predict", headers={"origin": ORIGIN, **PREFLIGHT})
    check_error(refused, 405, "method_not_allowed")


def test_pages_of_listed_origins_may_ask(make_app: Callable[..., ASGIApp]) -> None:
    app = make_app(cors_origins=(ORIGIN, "http://localhost:5173"), token="s3cret")
    allowed = ask(app, "OPTIONS", "/predict", headers={"origin": ORIGIN, **PREFLIGHT})
    assert allowed.status_code == 200  # asked before there is a token to send
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in allowed.headers["access-control-allow-methods"]
    refused = ask(app, "POST", "/predict", headers={"origin": ORIGIN})
    check_error(refused, 401, "unauthorized")  # and the page can read that
    assert refused.headers["access-control-allow-origin"] == ORIGIN
    assert "server-timing" in refused.headers["access-control-expose-headers"]
    other = ask(app, "OPTIONS", "/predict", headers={"origin": "https://evil.org", **PREFLIGHT})
    assert "POCKETNETS_CORS_ORIGINS" in check_error(other, 400, "cors")
    assert "access-control-allow-origin" not in other.headers


def test_pages_of_all_origins_may_ask(make_app: Callable[..., ASGIApp]) -> None:
    answer = ask(make_app(cors_origins=("*",)), "GET", "/model", headers={"origin": ORIGIN})
    assert answer.headers["access-control-allow-origin"] == "*"


def test_layers_fit_around_any_application() -> None:
    app = wrap(PlainTextResponse("inside"), [])
    assert ask(app, "GET", "/").text == "inside"
