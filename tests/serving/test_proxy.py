"""The service behind a reverse proxy that shows it under a prefix, as users meet it."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import uvicorn
from chromium import Browser
from live_page import ANSWERED, READY, bars, give
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "/tools/classifier"
CLIENT = "203.0.113.7"
DRAWN = "document.querySelectorAll('.opblock').length"


@contextmanager
def proxy(target: str) -> Iterator[str]:
    """Yields the address of a proxy for ``target`` under :data:`PREFIX`, which it strips."""
    own = {"host", "connection", "content-length", "transfer-encoding", "accept-encoding"}

    async def forward(request: Request) -> Response:
        path = request.url.path.removeprefix(PREFIX)
        headers = {name: text for name, text in request.headers.items() if name not in own}
        headers |= {"x-forwarded-for": CLIENT, "x-forwarded-proto": "https"}
        async with httpx.AsyncClient(base_url=target) as client:
            url = httpx.URL(path, query=request.url.query.encode())
            body = await request.body()
            answer = await client.request(request.method, url, headers=headers, content=body)
        kept = {name: text for name, text in answer.headers.items() if name not in own}
        return Response(answer.content, answer.status_code, kept)

    app = Starlette(routes=[Route(f"{PREFIX}{{path:path}}", forward, methods=["GET", "POST"])])
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}{PREFIX}/"
        finally:
            server.should_exit = True
            thread.join()


def test_page_docs_and_log(
    artifact_path: Path,
    serve: Callable[..., Any],
    environment: dict[str, str],
    browser: Browser,
    encoded: Callable[..., bytes],
) -> None:
    environment |= {
        "POCKETNETS_ROOT_PATH": PREFIX,
        "POCKETNETS_TRUSTED_PROXIES": "10.0.0.0/8, 127.0.0.1",
        "POCKETNETS_ACCESS_LOG": "1",
    }
    arguments = ["-m", "serving", "--artifact", str(artifact_path)]
    with serve(*arguments, cwd=ROOT, environment=environment) as server:
        with proxy(server.url) as url:
            page = browser.open(url)
            page.wait(READY)
            give(page, "drop", image=encoded("blue"))
            page.wait(ANSWERED)
            assert bars(page)[0][0] == "blue"
            docs = browser.open(f"{url}docs/")
            docs.wait(DRAWN)
            assert docs.evaluate(DRAWN) == 19
            assert docs.evaluate("document.querySelector('.servers select').value") == PREFIX
            for each in (page, docs):
                assert each.errors == []
                paths = [urlsplit(asked).path for asked in each.requests]
                assert all(path.startswith(PREFIX) for path in paths if path.startswith("/"))
        assert server.stop(signal.SIGTERM) == 0
        log = server.log()
    (line,) = [line for line in log.splitlines() if "/predict" in line]
    assert CLIENT in line
    assert "scheme=https" in line
