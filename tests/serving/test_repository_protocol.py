"""Triton's extension for model repositories: what there is, loading and unloading."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from serving.app import create_app
from serving.grpc_messages import SERVICE, message_classes
from serving.models import Models
from serving.repository import first_listing
from serving.settings import Settings

KNOWN = {"authorization": "Bearer s3cret"}


@pytest.fixture
def repository(tmp_path: Path, save_artifact: Callable[..., Path]) -> Path:
    """Returns a folder with the models ``first`` and ``second``, in version 1."""
    folder = tmp_path / "repository"
    for name in ("first", "second"):
        save_artifact(folder / name / "1")
    return folder


@pytest.fixture
def models(repository: Path) -> Iterator[Models]:
    settings = Settings(
        artifact=repository / "first" / "1", repository=repository, threads=1, token="s3cret"
    )
    with Models(settings, first_listing(settings)) as opened:
        yield opened


class Client:
    """Asks the service of ``models`` by HTTP."""

    def __init__(self, models: Models) -> None:
        self._transport = httpx.ASGITransport(create_app(models))

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=self._transport, base_url="http://test") as client:
            content = b"" if body is None else json.dumps(body)
            path = f"/v2/repository/{path}"
            return await client.post(path, content=content, headers={**KNOWN, **headers})

    async def index(self, **body: Any) -> list[tuple[str, ...]]:
        answer = await self.post("index", body or None)
        assert answer.status_code == 200, answer.text
        return [tuple(each.values()) for each in answer.json()]


def test_models_are_listed_unloaded_and_loaded(
    models: Models, repository: Path, save_artifact: Callable[..., Path]
) -> None:
    loaded = [("first", "1", "READY", ""), ("second", "1", "READY", "")]
    gone = ("second", "1", "UNAVAILABLE", "unloaded")

    async def run() -> None:
        client = Client(models)
        assert await client.index() == loaded
        unload = {"parameters": {"unload_dependents": False}}
        done = await client.post("models/second/unload", unload)
        assert (done.status_code, done.content) == (200, b"")
        assert await client.index() == [loaded[0], gone]
        assert await client.index(ready=True) == [loaded[0]]
        save_artifact(repository / "second" / "2")
        assert (await client.post("models/second/load")).status_code == 200
        assert await client.index() == [loaded[0], ("second", "2", "READY", "")]
        save_artifact(repository / "second" / "3")  # it takes the place of the second
        assert (await client.post("models/second/load", {})).status_code == 200
        assert await client.index() == [loaded[0], ("second", "3", "READY", "")]
        await models.left()

    asyncio.run(run())


def test_what_is_broken_says_why_and_not_where(models: Models, repository: Path) -> None:
    (repository / "third" / "1").mkdir(parents=True)
    (repository / "third" / "1" / "manifest.json").write_text("{")
    shutil.rmtree(repository / "second")

    async def run() -> None:
        client = Client(models)
        *_, (name, version, state, reason) = await client.index()
        assert (name, version, state) == ("third", "", "UNAVAILABLE")
        assert "manifest.json" in reason
        refused = await client.post("models/second/load")
        assert (refused.status_code, refused.json().keys()) == (409, {"error"})
        for text in (reason, refused.json()["error"]):
            assert str(repository) not in text

    asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "body", "status", "detail"),
    [
        ("models/first/unload", None, 409, "promote another model"),
        ("models/fist/unload", None, 404, "first"),
        ("models/fist/load", None, 409, "no model 'fist'"),
        ("models/first/load", {"parameters": {"config": "{}"}}, 400, "send no parameters"),
        ("models/first/unload", {"parameters": {"x": 1}}, 400, "unload_dependents"),
        ("models/first/load", {"version": "1"}, 400, "version"),
        ("index", {"ready": 1}, 400, "ready"),
        ("index", [], 400, "JSON"),
    ],
)
def test_what_is_refused(models: Models, path: str, body: Any, status: int, detail: str) -> None:
    async def run() -> None:
        answer = await Client(models).post(path, body)
        assert (answer.status_code, detail in answer.json()["error"]) == (status, True), answer.text

    asyncio.run(run())
    assert models.listing.revision == 0


def test_changes_need_a_token_and_leave_lines(
    models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run() -> None:
        client = Client(models)
        for path in ("index", "models/first/load", "models/second/unload"):
            assert (await client.post(path, authorization="Bearer x")).status_code == 401
        assert (await client.post("models/second/unload")).status_code == 200
        await models.left()

    asyncio.run(run())
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [
        (line["path"].removeprefix("/v2/repository/models"), line["status"]) for line in lines
    ] == [
        ("/first/load", 401),
        ("/second/unload", 401),
        ("/second/unload", None),  # it begins
        ("/second/unload", 200),
    ]


def test_the_same_over_grpc(
    repository: Path, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(
        artifact=repository / "first" / "1",
        repository=repository,
        threads=1,
        token="s3cret",
        grpc_port=port,
    )
    classes = message_classes()

    async def run() -> None:
        app = create_app(Models(settings, first_listing(settings)))
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
            app.router.lifespan_context(app),
        ):

            async def ask(method: str, **fields: Any) -> Any:
                call = channel.unary_unary(f"/{SERVICE}/{method}")
                body = classes[f"{method}Request"](**fields).SerializeToString()
                answer = await call(body, metadata=tuple(KNOWN.items()), timeout=20)
                return classes[f"{method}Response"].FromString(answer)

            async def states() -> list[str]:
                return [each.state for each in (await ask("RepositoryIndex")).models]

            await ask("RepositoryModelUnload", model_name="second")
            assert await states() == ["READY", "UNAVAILABLE"]
            assert len((await ask("RepositoryIndex", ready=True)).models) == 1
            await ask("RepositoryModelLoad", model_name="second")
            assert await states() == ["READY", "READY"]
            with pytest.raises(grpc.aio.AioRpcError, match="FAILED_PRECONDITION"):
                await ask("RepositoryModelUnload", model_name="first")
            with pytest.raises(grpc.aio.AioRpcError, match="exceeds the limit of 4096 bytes"):
                await ask("RepositoryModelLoad", model_name="x" * 5000)
            for method in ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"):
                with pytest.raises(grpc.aio.AioRpcError, match="one repository, which has no name"):
                    await ask(method, repository_name="other")

    asyncio.run(run())
    first, *_ = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["change"] == {"name": "second", "parameters": []}
