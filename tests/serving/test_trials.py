"""A canary answers a share of the requests; a shadow is compared, and never in the way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from starlette.applications import Starlette

from artifact.records import Metrics
from core.errors import UserError
from serving import state, supervisor
from serving.app import create_app
from serving.models import Models
from serving.repository import first_listing
from serving.settings import Settings
from serving.starting import start

Encoded = Callable[..., bytes]
Save = Callable[..., Path]
TOKEN = "s3cret"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("trials")
    return folder / "old" / "onnx-fp32", folder / "new" / "onnx-fp32"


@pytest.fixture(scope="module")
def made(folders: tuple[Path, Path], save_artifact: Save) -> tuple[Path, Path]:
    for path, scale in zip(folders, (0.001, 0.05), strict=True):
        save_artifact(path, scale=scale)
    return folders


def settings_of(made: tuple[Path, Path], **changes: Any) -> Settings:
    options = {"threads": 1, "token": TOKEN, **changes}
    return Settings(artifact=made[0], models=(str(made[1]),), **options)


async def ask(app: Starlette, path: str, client: str = "", **content: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {TOKEN}"} | ({"x-client-id": client} if client else {})
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as sender:
        response = await sender.post(path, headers=headers, **content)
    assert response.status_code in (200, 409), response.text
    return response


def compared(outcome: str) -> float:
    labels = {"model": "old", "version": "onnx-fp32", "shadow": "new"}
    labels |= {"shadow_version": "onnx-fp32", "outcome": outcome}
    return REGISTRY.get_sample_value("pocketnets_shadow_images_total", labels) or 0.0


def test_a_canary_answers_its_share_and_clients_stay(
    made: tuple[Path, Path], encoded: Encoded
) -> None:
    settings = settings_of(made, canary="new=30%")

    async def run(app: Starlette, models: Models) -> None:
        red = encoded("red")

        async def who(client: str) -> str:
            response = await ask(app, "/predict?top_k=1", client, content=red)
            name, _, version = response.headers["x-model"].partition(":")
            assert version == "onnx-fp32"
            assert (response.json()["predictions"][0]["score"] > 0.9) == (name == "new")
            return name

        clients = [f"client-{number}" for number in range(60)]
        first = {client: await who(client) for client in clients}
        assert 8 <= Counter(first.values())["new"] <= 28  # 18 of 60 are expected
        assert {client: await who(client) for client in clients} == first
        assert {await who("") for _ in range(40)} == {"old", "new"}
        # Who had the canary keeps it when the share rises.
        await ask(app, "/models/new/canary", json={"share": 0.6})
        more = {client: await who(client) for client in clients}
        assert all(more[client] == "new" for client in clients if first[client] == "new")
        assert Counter(more.values())["new"] > Counter(first.values())["new"]
        named = await ask(app, "/models/old/predict", content=red)
        assert "x-model" not in named.headers
        await ask(app, "/models/new/rollback")
        response = await ask(app, "/predict", content=red)
        assert "x-model" not in response.headers

    with Models(settings, first_listing(settings)) as models:
        asyncio.run(run(create_app(models), models))


def test_a_promotion_can_be_rolled_back(made: tuple[Path, Path]) -> None:
    settings = settings_of(made, canary="new=100%", shadow="new")

    async def run(app: Starlette) -> None:
        async def change(path: str, **body: Any) -> tuple[str, list[float]]:
            told = (await ask(app, path, json=body)).json()
            found = [(each["canary"], each["shadow"]) for each in told.get("models", [])]
            return told.get("default", told.get("error")), [x for pair in found for x in pair]

        assert await change("/models/new/promote") == ("new", [0, 0, 0, 0])
        assert await change("/models/new/canary", share=0.5) == ("not_possible", [])
        assert await change("/models/old/rollback") == ("not_possible", [])
        assert await change("/models/new/rollback") == ("old", [0, 0, 0, 0])
        assert await change("/models/old/rollback") == ("not_possible", [])
        assert await change("/models/new/shadow", share=0.25) == ("old", [0, 0, 0, 0.25])
        assert await change("/models/new/shadow", share=0) == ("old", [0, 0, 0, 0])
        await change("/models/new/shadow", share=1)
        assert await change("/models/new/unload") == ("old", [0, 0])

    with Models(settings, first_listing(settings)) as models:
        app = create_app(models)
        asyncio.run(run(app))
        asyncio.run(models.left())


def test_a_shadow_is_compared_off_the_path(made: tuple[Path, Path], encoded: Encoded) -> None:
    settings = settings_of(made, shadow="new")
    with Models(settings, first_listing(settings)) as models:
        app = create_app(models)
        before = {outcome: compared(outcome) for outcome in ("agrees", "differs", "dropped")}

        async def run() -> None:
            for colour in ("red", "lime", "blue"):
                response = await ask(app, "/predict", content=encoded(colour))
                assert "x-model" not in response.headers
                assert response.json()["predictions"][0]["score"] < 0.5
                assert models.shadow is not None
                await models.shadow.done()
            await ask(app, "/models/old/predict", content=encoded("red"))  # is not mirrored

        asyncio.run(run())
        assert {outcome: compared(outcome) - was for outcome, was in before.items()} == {
            "agrees": 3,
            "differs": 0,
            "dropped": 0,
        }


def test_overload_drops_the_shadow_first(made: tuple[Path, Path], encoded: Encoded) -> None:
    settings = settings_of(made, shadow="new")
    with Models(settings, first_listing(settings)) as models:
        app = create_app(models)
        before = compared("dropped"), compared("agrees")

        async def run() -> None:
            red = encoded("red")
            await asyncio.gather(*(ask(app, "/predict", content=red) for _ in range(30)))
            await models.left()

        asyncio.run(run())
        dropped, agrees = compared("dropped") - before[0], compared("agrees") - before[1]
        assert dropped + agrees == 30
        assert dropped >= 20  # one thread, and room for one that waits


def test_a_shadow_that_fails_for_every_image_is_told_once(
    made: tuple[Path, Path],
    encoded: Encoded,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = settings_of(made, shadow="new")
    with Models(settings, first_listing(settings)) as models:
        app = create_app(models)
        shadow = models.shadow
        assert shadow is not None
        before = compared("failed")
        monkeypatch.setattr(shadow.served.predictor, "_runtime", lambda pixels: 1 / 0)

        async def run() -> None:
            for _ in range(5):
                assert (await ask(app, "/predict", content=encoded("red"))).status_code == 200
                await shadow.done()
            shadow._told_s -= 60
            await ask(app, "/predict", content=encoded("red"))
            await shadow.done()

        asyncio.run(run())
        monkeypatch.undo()
    assert compared("failed") - before == 6
    told = [record.message for record in caplog.records if "failed" in record.message]
    assert told == [
        "the shadow new:onnx-fp32 failed (images since the last line: 1)",
        "the shadow new:onnx-fp32 failed (images since the last line: 5)",
    ]


@pytest.mark.parametrize(
    "text",
    ["other=5%", "new:2=5%", "new=x", "new=0%", "new=101%", "old=5%", "new=0.05", "new=5", "new="],
)
def test_a_trial_that_cannot_be(made: tuple[Path, Path], text: str) -> None:
    for kind in ("canary", "shadow"):
        with pytest.raises(UserError, match=kind):
            first_listing(settings_of(made, **{kind: text}))


def test_a_canary_has_a_share_and_the_start_says_which(
    made: tuple[Path, Path],
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(UserError, match="new=5%"):
        first_listing(settings_of(made, canary="new"))
    monkeypatch.setenv(state.FOLDER, "")  # restored afterwards
    monkeypatch.setattr(supervisor, "supervise", lambda *_: 0)
    settings = settings_of(made, canary="new=0.5%", shadow="new", port=port)
    assert start(settings, "by the test") == 0
    lines = capsys.readouterr().err.splitlines()
    assert {"canary: new 0.5%", "shadow: new 100%"} <= set(lines)


def test_a_trial_has_the_labels_of_the_default(
    made: tuple[Path, Path], save_artifact: Save, tmp_path: Path
) -> None:
    other = save_artifact(tmp_path / "other" / "onnx-fp32", labels=("red", "green", "violet"))
    metrics = Metrics(
        top1=0.5, torch_top1=0.5, images=4, runtime="ort-cpu", mean_ap=0.7, torch_mean_ap=0.7
    )
    several = save_artifact(
        *(tmp_path / "several" / "onnx-fp32",),
        **{"task": "multi", "thresholds": (0.9, 0.5, 0.4), "metrics": metrics},
    )
    for path, kind in ((other, "canary"), (several, "shadow")):
        settings = Settings(
            artifact=made[0], models=(str(path),), **{kind: f"{path.parent.name}=5%"}
        )
        with pytest.raises(UserError, match=f"cannot be the {kind} of old"):
            first_listing(settings)
    options: dict[str, Any] = {"threads": 1, "token": TOKEN, "canary": "new=5%"}
    settings = Settings(artifact=made[0], models=(str(made[1]), str(other)), **options)

    async def run(app: Starlette, models: Models) -> None:
        for verb in ("canary", "shadow"):
            refused = await ask(app, f"/models/other/{verb}", json={"share": 0.5})
            assert refused.json()["error"] == "not_possible"
        # The default must not become another than the canary's either.
        assert (await ask(app, "/models/other/promote")).status_code == 409
        assert models.canary is not None
        await ask(app, "/models/new/rollback")
        assert (await ask(app, "/models/other/promote")).status_code == 200

    with Models(settings, first_listing(settings)) as models:
        asyncio.run(run(create_app(models), models))
