"""Several models in one service: which one answers, and how they come and go."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from starlette.applications import Starlette

from core.errors import UserError
from serving.app import create_app
from serving.models import Models
from serving.repository import first_listing, given_folders
from serving.settings import Settings

Encoded = Callable[..., bytes]
Save = Callable[..., Path]
TOKEN = "s3cret"
KNOWN = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def repository(tmp_path: Path, save_artifact: Save) -> Path:
    """Returns a repository: ``sharp`` has versions 1 and 2, ``soft`` has one, ``empty`` none."""
    folder = tmp_path / "repository"
    for place, scale in (("sharp/1", 0.04), ("sharp/2", 0.05), ("soft/onnx-fp32", 0.001)):
        save_artifact(folder / place, scale=scale)
    (folder / "empty").mkdir()
    return folder


def settings_of(repository: Path, default: str = "sharp/2", **changes: Any) -> Settings:
    options = {"threads": 1, "token": TOKEN, "max_bytes": 100_000, **changes}
    return Settings(artifact=repository / default, repository=repository, **options)


async def ask(app: Starlette, method: str, path: str, **content: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, headers=KNOWN, **content)


@pytest.fixture
def models(repository: Path) -> Iterator[Models]:
    settings = settings_of(repository)
    with Models(settings, first_listing(settings)) as models:
        yield models


def score(response: httpx.Response) -> float:
    assert response.status_code == 200, response.text
    return float(response.json()["predictions"][0]["score"])


def test_each_answers_by_its_name_and_the_default_without(models: Models, encoded: Encoded) -> None:
    app = create_app(models)
    red = encoded("red")

    async def run() -> None:
        by_default = await ask(app, "POST", "/predict", content=red)
        named = await ask(app, "POST", "/models/sharp/predict", content=red)
        soft = await ask(app, "POST", "/models/soft/predict?top_k=1", content=red)
        exact = await ask(app, "POST", "/models/soft/versions/onnx-fp32/predict", content=red)
        assert score(by_default) == score(named) > 0.99
        assert score(soft) == score(exact) < 0.5
        assert len(soft.json()["predictions"]) == 1
        batch = await ask(
            app, "POST", "/models/soft/predict_batch", files=[("image", ("a.png", red))] * 2
        )
        assert len(batch.json()["results"]) == 2
        listed = (await ask(app, "GET", "/models")).json()
        shown = [(m["name"], m["version"], m["default"], m["current"]) for m in listed["models"]]
        assert shown == [("sharp", "2", True, True), ("soft", "onnx-fp32", False, True)]
        memory = listed["memory"]
        assert memory["models"] == sum(model["bytes"] for model in listed["models"]) > 0
        assert memory["models"] < memory["limit"] == 4096 << 20
        facts = (await ask(app, "GET", "/models/soft")).json()
        assert facts == (await ask(app, "GET", "/model")).json() | {
            name: facts[name] for name in ("sha256s",)
        }
        for path, status in (("/models/sof", 404), ("/models/soft/versions/2", 404)):
            missing = await ask(app, "GET", path)
            assert (missing.status_code, missing.json()["error"]) == (status, "unknown_model")
        metrics = (await ask(app, "GET", "/metrics")).text
        for line in (
            'path="/models/{name}/predict",status="200",version="onnx-fp32"} 1.0',
            'pocketnets_queue_depth{model="soft",version="onnx-fp32"} 0.0',
            'pocketnets_model_memory_bytes{model="sharp",version="2"}',
        ):
            assert line in metrics

    asyncio.run(run())


def test_models_come_and_go_by_an_administrator(
    models: Models, repository: Path, encoded: Encoded, save_artifact: Save
) -> None:
    app = create_app(models)
    red = encoded("red")

    async def change(path: str, **body: Any) -> httpx.Response:
        return await ask(app, "POST", path, json=body)

    async def run() -> None:
        async def names() -> list[str]:
            listed = (await ask(app, "GET", "/models")).json()["models"]
            return [f"{model['name']}:{model['version']}" for model in listed]

        assert await names() == ["sharp:2", "soft:onnx-fp32"]
        assert (await change("/models/sharp/load", version="1")).status_code == 200
        assert await names() == ["sharp:2", "soft:onnx-fp32", "sharp:1"]
        before = score(await ask(app, "POST", "/predict", content=red))
        older = score(await ask(app, "POST", "/models/sharp/versions/1/predict", content=red))
        assert older < before
        promoted = await change("/models/sharp/promote", version="1")
        assert promoted.json()["models"][2] | {"bytes": 0} == {
            **{"name": "sharp", "version": "1", "current": True, "default": True},
            **{"model": "channels", "data": "colours", "precision": "fp32", "format": "onnx"},
            **{"runtime": "ort-cpu", "labels": 3, "bytes": 0, "canary": 0.0, "shadow": 0.0},
        }
        assert score(await ask(app, "POST", "/predict", content=red)) == older
        refused = await change("/models/sharp/unload")
        assert (refused.status_code, refused.json()["error"]) == (409, "not_possible")
        assert (await change("/models/sharp/unload", version="2")).status_code == 200
        assert await names() == ["soft:onnx-fp32", "sharp:1"]
        # The same version, as it lies there now.
        save_artifact(repository / "soft" / "onnx-fp32", scale=0.02)
        assert (await change("/models/soft/load")).status_code == 200
        assert score(await ask(app, "POST", "/models/soft/predict", content=red)) > 0.9
        # What is broken does not come, and what was to be replaced stays.
        save_artifact(repository / "soft" / "onnx-fp32", logits=models_logits())
        failed = await change("/models/soft/load")
        assert (failed.status_code, failed.json()["error"]) == (409, "not_loaded")
        assert "soft:onnx-fp32" in failed.json()["detail"]
        assert str(repository) not in failed.json()["detail"]
        assert score(await ask(app, "POST", "/models/soft/predict", content=red)) > 0.9
        save_artifact(repository / "late" / "onnx-fp32", scale=0.03)
        assert (await change("/models/late/load")).status_code == 200
        assert (await change("/models/promote/promote")).status_code == 404
        for path in ("none", "..", ".hidden", "empty", "a" * 5000, "%00", "a%2Fb", "~"):
            response = await change(f"/models/{path}/load")
            assert response.status_code in (404, 409), path
        await models.left()
        sizes = {(each.entry.name, each.entry.version): each.bytes for each in models.all}
        sizes["sharp", "2"] = 0  # which left
        for (name, version), size in sizes.items():
            labels = {"model": name, "version": version}
            assert REGISTRY.get_sample_value("pocketnets_model_memory_bytes", labels) == size

    asyncio.run(run())


def models_logits() -> Any:
    import numpy as np

    return np.zeros((3, 3), np.float32)


def test_models_are_named_by_their_folders_or_as_told(repository: Path) -> None:
    soft = repository / "soft" / "onnx-fp32"
    settings = Settings(
        artifact=soft, models=(f"twice={soft}", str(soft), str(repository / "sharp"))
    )
    listing = first_listing(settings)
    assert [entry.reference for entry in listing.entries] == [
        *("twice:onnx-fp32", "soft:onnx-fp32", "sharp:2")
    ]
    assert listing.default == "twice"  # the first of those with the default's artifact
    with pytest.raises(UserError, match="two models are called soft:onnx-fp32"):
        first_listing(Settings(artifact=soft, models=(str(soft), str(soft))))
    odd = soft.rename(repository / "odd name")
    with pytest.raises(UserError, match="cannot be a model's name"):
        first_listing(Settings(artifact=odd))


def test_the_model_in_a_bento_is_called_as_elsewhere(
    artifact_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = Path(shutil.copytree(artifact_path, tmp_path / "artifact"))
    monkeypatch.setattr("serving.repository.CARRIED", packed)
    elsewhere, settings = Settings(artifact=artifact_path), Settings(artifact=packed)
    (entry,) = first_listing(settings).entries
    assert entry.key == first_listing(elsewhere).entries[0].key == ("channels-colours", "onnx-fp32")
    assert given_folders(settings) == {"channels-colours": (packed, packed)}


def test_what_was_given_at_the_start_can_come_back_in_any_version(
    repository: Path, save_artifact: Save
) -> None:
    plain = save_artifact(repository / "plain", scale=0.03)
    given = (str(repository / "sharp" / "2"), f"mild={repository / 'soft'}", str(plain))
    settings = Settings(artifact=repository / "sharp" / "2", models=given, threads=1, token=TOKEN)

    async def run(app: Starlette, models: Models) -> None:
        async def change(path: str, **body: Any) -> list[str]:
            response = await ask(app, "POST", f"/models/{path}", json=body)
            assert response.status_code == 200, response.text
            return [f"{each['name']}:{each['version']}" for each in response.json()["models"]]

        assert await change("sharp/load", version="1") == [
            *("sharp:2", "mild:onnx-fp32", "plain:1", "sharp:1")
        ]
        assert await change("sharp/unload", version="1")
        for name in ("mild", "plain"):
            assert len(await change(f"{name}/unload")) == 2
            assert len(await change(f"{name}/load")) == 3
        save_artifact(repository / "soft" / "onnx-int8", scale=0.02)
        assert "mild:onnx-int8" in await change("mild/load", version="onnx-int8")
        # No other folder of this machine, though it lies beside those.
        for name, version in (("soft", "onnx-fp32"), ("mild", "../sharp/1"), ("plain", "sharp")):
            refused = await ask(app, "POST", f"/models/{name}/load", json={"version": version})
            assert refused.status_code == 409, name
        await models.left()

    with Models(settings, first_listing(settings)) as models:
        asyncio.run(run(create_app(models), models))


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"{", "EOF"),
        (b"[]", "an object"),
        (b'{"version": 1}', "version"),
        (b'{"artifact": "/etc"}', "artifact"),
    ],
)
def test_a_change_that_is_not_understood(models: Models, body: bytes, detail: str) -> None:
    response = asyncio.run(ask(create_app(models), "POST", "/models/soft/load", content=body))
    assert (response.status_code, response.json()["error"]) == (400, "bad_json")
    assert detail in response.json()["detail"]


@pytest.mark.parametrize("version", ["版", "we ird"])
def test_a_version_is_a_name(
    models: Models, repository: Path, save_artifact: Save, version: str
) -> None:
    save_artifact(repository / "soft" / version)
    body = {"version": version}
    response = asyncio.run(ask(create_app(models), "POST", "/models/soft/load", json=body))
    assert (response.status_code, response.json()["error"]) == (409, "not_possible")
    assert "cannot be a version" in response.json()["detail"]


def test_without_a_token_nobody_changes_models(repository: Path) -> None:
    settings = settings_of(repository, token=None)
    with Models(settings, first_listing(settings)) as models:
        app = create_app(models)
        for verb in ("load", "unload", "promote"):
            response = asyncio.run(ask(app, "POST", f"/models/soft/{verb}"))
            assert (response.status_code, response.json()["error"]) == (403, "no_token")


def test_workers_that_share_no_list_are_not_changed(repository: Path) -> None:
    settings = settings_of(repository, workers=2)  # as bentoml serve starts them
    with Models(settings, first_listing(settings)) as models:
        response = asyncio.run(ask(create_app(models), "POST", "/models/soft/unload"))
        assert (response.status_code, response.json()["error"]) == (409, "not_possible")
        assert len(models.all) == 2


def test_the_memory_of_all_has_a_limit(repository: Path, save_artifact: Save) -> None:
    settings = settings_of(repository, model_memory_mb=256)
    with Models(settings, first_listing(settings)) as models:
        models.default.bytes = 300 << 20

        async def run() -> httpx.Response:
            response = await ask(
                create_app(models), "POST", "/models/sharp/load", json={"version": "1"}
            )
            await models.left()
            return response

        response = asyncio.run(run())
        assert (response.status_code, response.json()["error"]) == (409, "not_loaded")
        assert "MODEL_MEMORY_MB" in response.json()["detail"]
    with pytest.raises(UserError, match="MAX_MODELS"):
        first_listing(settings_of(repository, max_models=1))


def test_a_request_ends_with_the_model_that_it_began_with(models: Models, encoded: Encoded) -> None:
    app = create_app(models)
    red = encoded("red")

    async def run() -> None:
        sent, go = asyncio.Event(), asyncio.Event()

        async def slowly() -> Any:
            yield red[:20]
            sent.set()
            await go.wait()
            yield red[20:]

        gone = models.find("soft").predictor
        asked = asyncio.create_task(ask(app, "POST", "/models/soft/predict", content=slowly()))
        await sent.wait()
        assert (await ask(app, "POST", "/models/soft/unload")).status_code == 200
        assert (await ask(app, "POST", "/models/soft/predict", content=red)).status_code == 404
        assert gone.ready
        go.set()
        assert score(await asked) < 0.5
        await models.left()
        assert not gone.ready

    asyncio.run(run())
