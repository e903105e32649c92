"""The service's page as users meet it: before a real server, by files, keys and drops."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn
from chromium import Browser, Page
from starlette.types import ASGIApp, Receive, Scope, Send

from artifact.artifact import Artifact
from serving.app import create_app
from serving.models import Models
from serving.predictor import Predictor
from serving.repository import first_listing
from serving.settings import Settings

MAX_BYTES = 100_000
READY = "document.title !== 'Pocketnets'"
ANSWERED = "document.querySelector('#bars .fill') !== null"
FAILED = "document.getElementById('failure').textContent !== ''"
FOCUSED = "document.activeElement.id || document.activeElement.value || 'body'"

DENIED = "the token is missing or wrong"
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}


class Site:
    """The application behind a gate that a test may close.

    Attributes:
        url: of the page.
        token: what a request must bear, except for the page itself; None for no such demand.
        broken: whether requests get a proxy's 502 instead of an answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.url = ""
        self.token: str | None = None
        self.broken = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") in ("/models", "/model", "/predict"):
            wanted = f"Bearer {self.token}".encode()
            if self.broken:
                return await _answer(send, 502, "<html>Bad gateway</html>")
            if self.token and dict(scope["headers"]).get(b"authorization") != wanted:
                body = {"error": "unauthorized", "detail": DENIED}
                return await _answer(send, 401, json.dumps(body))
        return await self._app(scope, receive, send)


async def _answer(send: Send, status: int, body: str) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body.encode()})


@contextmanager
def served(artifact: Artifact, **changes: Any) -> Iterator[Site]:
    """Returns a context manager: the service of ``artifact`` on a free port of this machine.

    It runs in this process, without BentoML around it; ``changes`` replace settings.
    """
    settings = Settings(artifact=artifact.path, threads=1, max_bytes=MAX_BYTES)
    settings = replace(settings, **changes)
    predictor = Predictor(settings, artifact)
    site = Site(create_app(Models(settings, first_listing(settings), predictor)))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        site.url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server = uvicorn.Server(uvicorn.Config(site, lifespan="on", log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield site
        finally:
            server.should_exit = True
            thread.join()


def opened(browser: Browser, site: Site, **screen: int | bool) -> Page:
    """Returns the page once it knows the model; ``screen`` is what ``Browser.open`` takes."""
    page = browser.open(site.url, **screen)  # type: ignore[arg-type]
    page.wait(READY)
    return page


def choose(page: Page, *files: Path, where: str = "files") -> None:
    """Chooses files as the browser's own dialog does."""
    found = page.call("Runtime.evaluate", expression=f"document.getElementById('{where}')")
    names = [str(file) for file in files]
    page.call("DOM.setFileInputFiles", files=names, objectId=found["result"]["objectId"])


def give(page: Page, event: str, **files: bytes) -> None:
    """Drops or pastes files, by the event that a browser sends for it."""
    content = {name: base64.b64encode(data).decode() for name, data in files.items()}
    page.evaluate(
        f"""(() => {{
            const transfer = new DataTransfer();
            for (const [name, text] of Object.entries({json.dumps(content)})) {{
                const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
                transfer.items.add(new File([bytes], name, {{ type: "image/png" }}));
            }}
            const options = {{ bubbles: true, cancelable: true }};
            document.querySelector("h1").dispatchEvent("{event}" === "drop"
                ? new DragEvent("drop", {{ ...options, dataTransfer: transfer }})
                : new ClipboardEvent("paste", {{ ...options, clipboardData: transfer }}));
        }})()"""
    )


def press(page: Page, key: str) -> None:
    """Presses a key and lets it go."""
    names = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
    typed = {"text": "\r"} if key == "Enter" else {}
    page.call("Input.dispatchKeyEvent", type="keyDown", **names, **typed)
    page.call("Input.dispatchKeyEvent", type="keyUp", **names)


def seen(page: Page, name: str) -> str:
    """Returns the text of the element ``name`` (its id) as a user sees it; "" if hidden."""
    element = f"document.getElementById('{name}')"
    return str(page.evaluate(f"{element}.checkVisibility() ? {element}.innerText : ''"))


def bars(page: Page) -> list[tuple[str, str]]:
    """Returns label and score of each filled bar that a user sees."""
    found = page.evaluate(
        """[...document.querySelectorAll("#bars li:has(.fill)")]
            .filter((bar) => bar.checkVisibility())
            .map((bar) => [".label", ".score"].map((part) => bar.querySelector(part).innerText))"""
    )
    return [(label, score) for label, score in found]
