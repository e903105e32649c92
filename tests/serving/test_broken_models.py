"""A model of the list that cannot be loaded: the service goes on, and it can be unloaded."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette

from core.errors import UserError
from serving.administration import Administration
from serving.app import create_app
from serving.errors import Refusal
from serving.listing import Entry, Listing
from serving.models import Models
from serving.predictor import Predictor
from serving.repository import first_listing
from serving.settings import Settings
from serving.state import Report, State

Save = Callable[..., Path]
WRONG = np.zeros((3, 3), np.float32)


@pytest.fixture
def settings(tmp_path: Path, save_artifact: Save) -> Settings:
    """Returns those of a service of ``a``, the default, and ``m``."""
    repository = tmp_path / "repository"
    default = save_artifact(repository / "a" / "1", scale=0.05)
    save_artifact(repository / "m" / "1", scale=0.04)
    return Settings(artifact=default, repository=repository, threads=1, token="s3cret")


async def change(app: Starlette, path: str, **body: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.post(path, json=body, headers={"authorization": "Bearer s3cret"})


def entry(name: str, version: str = "1") -> Entry:
    options: dict[str, Any] = {"call_threads": 1, "digest": "0", "answers": "0"}
    return Entry(name=name, version=version, artifact=Path(name), runtime="ort-cpu", **options)


def test_a_worker_that_fails_to_start_leaves_no_thread(
    settings: Settings, save_artifact: Save, tmp_path: Path
) -> None:
    assert settings.repository is not None
    save_artifact(settings.repository / "m" / "1", logits=WRONG)
    before = threading.active_count()
    models = Models(settings, first_listing(settings))
    models.load()
    with pytest.raises(UserError, match="golden"):
        models.open()
    assert threading.active_count() == before  # one would keep the process for ever
    with Models(settings, first_listing(settings), resuming=True) as models:
        assert [served.entry.reference for served in models.all] == ["a:1"]
        assert "golden" in models.failed["m:1"]
        models.open()  # as BentoML's lifespan does once more
        assert list(models.failed) == ["m:1"]


def test_a_service_has_started_once_a_worker_has(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    state.write(Listing.of((entry("a"),), "a"))
    assert not state.has_started
    state.start()
    assert State(tmp_path / "state").has_started


def test_a_listed_model_that_is_gone_bars_no_change(settings: Settings, tmp_path: Path) -> None:
    assert settings.repository is not None
    state = State(tmp_path / "state")
    listing = first_listing(settings)
    state.write(listing)
    shutil.rmtree(settings.repository / "m")
    with Models(settings, listing, resuming=True) as models:
        app = create_app(models, state=state)

        async def run() -> None:
            state.report(0, models.failed)
            for path in ("/models/a/load", "/models/a/promote"):
                answer = await change(app, path)
                assert answer.status_code == 200, answer.text
                assert list(answer.json()["failed"]) == ["m:1"]
            for path in ("/models/m/promote", "/models/m/canary", "/models/m/load"):
                answer = await change(app, path, **({"share": 0.5} if "canary" in path else {}))
                assert answer.status_code == 409, answer.text
                assert str(tmp_path) not in answer.text
            (settings.repository / "p").mkdir()
            (settings.repository / "p" / "choice.json").write_text("{")
            answer = await change(app, "/models/p/load")
            assert (answer.status_code, str(tmp_path) in answer.text) == (409, False)
            assert "p/choice.json" in answer.text
            assert (await change(app, "/models/n/unload")).status_code == 404
            answer = await change(app, "/models/m/unload")
            assert answer.status_code == 200, answer.text
            assert answer.json()["failed"] == {}
            assert [each.key for each in state.read().entries] == [("a", "1")]
            await models.left()

        asyncio.run(run())


def test_a_change_that_cannot_be_written_is_undone(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    state = State(tmp_path / "state")
    listing = first_listing(settings)
    state.write(listing)
    monkeypatch.setattr("serving.state.write_whole", fail)
    with Models(settings, listing) as models:
        app = create_app(models, state=state)

        async def run() -> None:
            answer = await change(app, "/models/m/unload")
            assert answer.status_code == 503, answer.text
            assert answer.json()["error"] == "not_written"
            assert "No space left on device" in answer.json()["detail"]
            assert str(tmp_path) not in answer.text
            assert [each.entry.reference for each in models.all] == ["a:1", "m:1"]
            await models.left()

        asyncio.run(run())
    assert state.read() == listing


def test_a_trouble_of_following_is_told_once(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = State(tmp_path / "state")
    listing = first_listing(settings)
    state.write(listing)
    looks = 0

    def gone() -> bool:
        nonlocal looks
        looks += 1
        raise FileNotFoundError("models.json")

    state.has_changed = gone  # type: ignore[method-assign]
    with Models(settings, listing) as models:

        async def run() -> None:
            following = asyncio.create_task(Administration(models, state).follow())
            while looks < 3:
                await asyncio.sleep(0.01)
            following.cancel()
            await models.left()

        asyncio.run(run())
    assert caplog.text.count("the list of models cannot be followed") == 1


@pytest.mark.parametrize(
    "when", ["before it is measured", "before it is opened", "before it warms up", "afterwards"]
)
def test_a_folder_that_vanishes_while_it_is_loaded_is_refused(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    assert settings.repository is not None
    folder = settings.repository / "m"
    listing = first_listing(settings)
    opened: list[Predictor] = []
    load, start = Predictor.load, Predictor.open

    def loading(predictor: Predictor) -> None:
        load(predictor)
        if when == "before it warms up":
            folder.rename(tmp_path / "away")

    def opening(predictor: Predictor, threads: Any = None) -> None:
        opened.append(predictor)
        start(predictor, threads)
        folder.rename(tmp_path / "away")

    with Models(settings, listing.without("m", "1")) as models:
        room = models._check_room

        def checking(entry: Entry, wanted: int) -> None:
            room(entry, wanted)
            if when == "before it is opened":
                folder.rename(tmp_path / "away")

        found = models._predictor

        def finding(entry: Entry) -> Predictor:
            predictor = found(entry)
            if when == "before it is measured":
                folder.rename(tmp_path / "away")
            return predictor

        monkeypatch.setattr(models, "_predictor", finding)
        monkeypatch.setattr(models, "_check_room", checking)
        monkeypatch.setattr(Predictor, "load", loading)
        monkeypatch.setattr(Predictor, "open", opening)

        async def run() -> None:
            answer = await change(create_app(models), "/models/m/load")
            if when == "afterwards":  # it is loaded: its files are needed no more
                assert answer.status_code == 200, answer.text
                assert models.find("m").bytes > 0
            else:
                assert (answer.status_code, answer.json()["error"]) == (409, "not_loaded")
                assert "m:1" in answer.json()["detail"]
                assert str(tmp_path) not in answer.text
                assert all(each._runtime is None for each in opened)
            await models.left()

        asyncio.run(run())


def test_a_default_that_did_not_come_is_rolled_back(settings: Settings, tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    listing = first_listing(settings)
    with Models(settings, listing) as models:
        state.write(listing.promoting("m", "1"))
        app = create_app(models, state=state)

        async def run() -> None:
            await models.follow(listing.without("m", "1"))  # the default, which is missing here
            answer = await change(app, "/models/m/rollback")
            assert answer.status_code == 200, answer.text
            assert state.read().default == "a"
            await models.left()

        asyncio.run(run())


def test_only_workers_that_followed_can_have_failed(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(tmp_path / "state")
    administration = Administration(None, state)  # type: ignore[arg-type]
    reports = [
        [Report(1, 4, {"m:1": "gone"}), Report(2, 5)],  # an old failure
        [Report(1, 5, {"n:1": "gone"}), Report(2, 5)],  # of a model that is not concerned
        [Report(1, 5, {"m:1": "gone"}), Report(2, 5)],
    ]
    monkeypatch.setattr(state, "reports", lambda: reports.pop(0))

    async def run() -> None:
        assert len(await administration._wait_for_all(state, 5, {"m:1"})) == 2
        with pytest.raises(Refusal, match="not every worker could follow: gone"):
            await administration._wait_for_all(state, 5, {"m:1"})

    asyncio.run(run())


def test_a_promotion_that_is_repeated_can_be_rolled_back() -> None:
    listing = Listing.of((entry("a"), entry("b")), "a")
    twice = listing.promoting("b", "1").promoting("b", "1")
    assert twice.rolling_back("b", "1").default == "a"
    assert twice.differing(listing) == {"b:1"}
    assert listing.without("b", "1").differing(listing) == set()
    assert listing.having(entry("b", "2"), current=True).differing(listing) == {"b:2"}


@pytest.mark.parametrize("name", ["a", "m"])
@pytest.mark.parametrize("kind", ["canary", "shadow"])
def test_a_worker_that_starts_anew_takes_no_other_labels(
    settings: Settings, save_artifact: Save, kind: str, name: str
) -> None:
    assert settings.repository is not None
    listing = first_listing(dataclasses.replace(settings, **{kind: "m=100%"}))
    save_artifact(settings.repository / name / "1", labels=("rouge", "vert", "bleu"))
    with Models(settings, listing, resuming=True) as models:
        assert (models.canary, models.shadow) == (None, None)
        (failed,) = models.failed.items()
        served = [each.entry.reference for each in models.all]
        if name == "m":
            assert (failed[0], served) == ("m:1", ["a:1"])
            assert "its labels or its task are others than when it was listed" in failed[1]
        else:  # the default must come: without it the service could not answer at all
            assert (failed[0], served) == ("m:1", ["a:1", "m:1"])
            assert f"m:1 cannot be the {kind} of a:1" in failed[1]


def test_a_model_with_other_labels_is_taken_once_it_is_loaded_again(
    settings: Settings, save_artifact: Save, tmp_path: Path
) -> None:
    assert settings.repository is not None
    state = State(tmp_path / "state")
    listing = first_listing(settings)
    state.write(listing)
    save_artifact(settings.repository / "m" / "1", labels=("rouge", "vert", "bleu"))
    with Models(settings, listing, resuming=True) as models:
        assert list(models.failed) == ["m:1"]
        app = create_app(models, state=state)

        async def run() -> None:
            state.report(0, models.failed)
            answer = await change(app, "/models/m/load")
            assert answer.status_code == 200, answer.text
            assert answer.json()["failed"] == {}
            assert models.find("m").predictor.artifact.labels[0] == "rouge"
            answer = await change(app, "/models/m/canary", share=0.5)
            assert (answer.status_code, answer.json()["error"]) == (409, "not_possible")
            await models.left()

        asyncio.run(run())
