from __future__ import annotations

import io
import re

import httpx
import pytest
from PIL import Image
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from serving.pages import FOLDER, page_routes
from serving.routes import Router, bento_routes

PATHS = {route.path for route in page_routes()}
TEXTS = [path for path in FOLDER.iterdir() if path.suffix != ".ico"]


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Router(PlainTextResponse("service"), page_routes(), None))


def test_every_file_has_a_route() -> None:
    names = {path.name for path in FOLDER.iterdir()}
    assert {"/", "/docs"} < PATHS
    loaded = names - {"index.html", "docs.html", "favicon.ico"}
    assert PATHS - {"/", "/docs", "/favicon.ico"} == {f"/page/{name}" for name in loaded}


@pytest.mark.parametrize("path", sorted(PATHS))
def test_answers_are_strict_about_what_they_are(client: TestClient, path: str) -> None:
    kinds = {"css": "text/css", "js": "text/javascript", "ico": "image/vnd.microsoft.icon"}
    kind = kinds.get(path.rpartition(".")[2], "text/html")
    response = client.get(path)
    assert response.status_code == 200
    charset = "; charset=utf-8" if kind.startswith("text/") else ""
    assert response.headers["content-type"] == kind + charset
    assert response.headers["x-content-type-options"] == "nosniff"
    policy = response.headers["content-security-policy"].split("; ")
    assert "default-src 'none'" in policy
    allowed = ["style-src 'self' 'unsafe-inline'"] if path == "/docs" else []  # Swagger UI's
    assert [each for each in policy if "unsafe" in each] == allowed
    assert int(response.headers["content-length"]) == len(response.content)


@pytest.mark.parametrize("path", sorted(PATHS))
def test_a_known_version_is_not_sent_again(client: TestClient, path: str) -> None:
    first = client.get(path)
    tag = first.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = client.get(path, headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
    assert client.get(path, headers={"if-none-match": '"other"'}).status_code == 200


def test_head_and_other_methods(client: TestClient) -> None:
    head: httpx.Response = client.head("/")
    assert head.status_code == 200
    assert head.headers["content-length"] == client.get("/").headers["content-length"]
    assert client.post("/").status_code == 405
    assert client.get("/page/../pages.py").status_code == 404


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    page = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)
    for path in TEXTS:
        source = path.read_text().replace("http://www.w3.org/2000/svg", "")  # a name, not fetched
        assert not re.search(r"https?://|@import|innerHTML|outerHTML|insertAdjacent", source), path


@pytest.mark.parametrize("page", ["index.html", "docs.html"])
def test_what_a_page_loads_is_served_and_relative(client: TestClient, page: str) -> None:
    names = re.findall(r'(?:src|href)="([^"]+)"', (FOLDER / page).read_text())
    assert not [name for name in names if name.startswith("/")]  # a prefix would be lost
    served = PATHS | {route.path for route in bento_routes()}
    assert {f"/{name}" for name in names if not name.startswith("data:")} <= served


def test_the_icon_is_one(client: TestClient) -> None:
    with Image.open(io.BytesIO(client.get("/favicon.ico").content)) as icon:
        assert (icon.format, icon.size) == ("ICO", (32, 32))
