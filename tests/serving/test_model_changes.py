"""Models that come, are replaced and go while several processes answer."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from crowd import LOOK_S, crowd, wait_until, workers

ROOT = Path(__file__).resolve().parents[2]
Encoded = Callable[..., bytes]
Serve = Callable[..., Any]  # yields conftest's Server
Environment = dict[str, str]
Save = Callable[..., Path]


def test_two_workers_follow_without_a_lost_request(
    tmp_path: Path, save_artifact: Save, encoded: Encoded, serve: Serve, environment: Environment
) -> None:
    repository = tmp_path / "repository"
    for name, scale in (("sharp", 0.05), ("soft", 0.001)):
        save_artifact(repository / name / "onnx-fp32", scale=scale)
    elsewhere = save_artifact(tmp_path / "other" / "onnx-fp32", scale=0.03)
    (repository / "broken" / "onnx-fp32").mkdir(parents=True)
    (repository / "broken" / "onnx-fp32" / "manifest.json").write_text("{")
    environment |= {"POCKETNETS_WORKERS": "2", "POCKETNETS_TOKEN": "s3cret"}
    arguments = ["-m", "serving", f"named={elsewhere}", "--repository", str(repository)]
    known = {"authorization": "Bearer s3cret"}
    with (
        serve(*arguments, cwd=ROOT, environment=environment) as server,
        httpx.Client(base_url=server.url, headers=known, timeout=60) as client,
    ):

        def change(path: str, **body: str) -> dict[str, Any]:
            response = client.post(path, json=body)
            assert response.status_code == 200, response.text
            return dict(response.json())

        listed = client.get("/models").json()
        assert listed["default"] == "named"
        assert [each["name"] for each in listed["models"]] == ["named", "sharp", "soft"]
        with crowd(server.port, encoded("red"), 4, "/models/soft/predict", "s3cret") as clients:
            clients.wait_for(20)
            save_artifact(repository / "soft" / "onnx-fp32", scale=0.05)
            done = change("/models/soft/load")
            # From here on every worker answers by the new one.
            replaced = len(clients.outcomes) + 4
            assert {each["revision"] for each in done["workers"]} == {1}
            followed = {each["pid"] for each in done["workers"]}
            assert followed  # a worker that starts later reads the new list
            assert followed <= {worker.pid for worker in workers(server)}
            clients.wait_for(30)
            change("/models/soft/promote")
            change("/models/named/unload")
            clients.wait_for(20)
        assert clients.counts.keys() == {200}
        scores = [body["predictions"][0]["score"] for _, _, body in clients.outcomes]
        assert scores[0] < 0.5
        assert min(scores[replaced:]) > 0.9
        # A worker that comes later knows the same models.
        before = workers(server)
        before[0].kill()
        wait_until(lambda: before[0].pid not in {each.pid for each in workers(server)}, LOOK_S)
        wait_until(lambda: len(workers(server)) == 2, LOOK_S)
        for _ in range(10):
            shown = client.get("/models").json()
            assert (shown["default"], shown["revision"]) == ("soft", 3)
            assert [each["name"] for each in shown["models"]] == ["sharp", "soft"]
        assert server.stop(signal.SIGTERM) == 0
        log = server.log()
    assert "broken" in log
    assert "Traceback" not in log
