"""What happens to requests when processes come, go and die."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from crowd import LOOK_S, RAW, crowd, is_alive, wait_until, workers
from PIL import Image

from core.preprocess import encode_png

ROOT = Path(__file__).resolve().parents[2]
Encoded = Callable[..., bytes]
Serve = Callable[..., Any]  # yields conftest's Server
Environment = dict[str, str]


@pytest.fixture
def noise() -> bytes:
    """Returns an image that takes some milliseconds to decode."""
    pixels = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    return encode_png(Image.fromarray(pixels))


def test_two_workers_count_together_and_one_is_killed(
    artifact_path: Path, encoded: Encoded, serve: Serve, environment: Environment
) -> None:
    environment["POCKETNETS_WORKERS"] = "2"
    arguments = ["-m", "serving", "--artifact", str(artifact_path)]
    with serve(*arguments, cwd=ROOT, environment=environment) as server:
        for _ in range(10):
            assert httpx.get(f"{server.url}/model").status_code == 200
        line = 'pocketnets_requests_total{model="",path="/model",status="200",version=""} 10.0'
        for _ in range(3):  # whichever of them is asked
            assert line in httpx.get(f"{server.url}/metrics").text
        before = workers(server)
        assert len(before) == 2
        with crowd(server.port, encoded(), 4) as clients:
            clients.wait_for(50)
            before[0].kill()
            wait_until(lambda: not is_alive(before[0]))
            dead = time.monotonic()
            wait_until(lambda: len(workers(server)) == 2, LOOK_S)
            clients.wait_for(50)
        failed = [began for began, outcome, _ in clients.outcomes if outcome != 200]
        assert len(failed) <= 4  # what it had in hand: one of each client at most
        assert all(began < dead for began in failed)
        after = {worker.pid for worker in workers(server)}
        assert before[1].pid in after
        assert before[0].pid not in after
        assert server.stop(signal.SIGTERM) == 0


def test_the_only_worker_is_killed(
    artifact_path: Path, encoded: Encoded, serve: Serve, environment: Environment
) -> None:
    arguments = ["-m", "serving", "--artifact", str(artifact_path)]
    with serve(*arguments, cwd=ROOT, environment=environment) as server:
        for amid_a_health_check in (False, True):
            (worker,) = workers(server)
            if amid_a_health_check:
                worker.suspend()
                time.sleep(1)  # it is asked twice a second, and has a minute to answer
            worker.kill()
            # The supervisor goes on listening: who comes meanwhile waits, and is answered.
            answer = httpx.post(f"{server.url}/predict", content=encoded(), headers=RAW, timeout=30)
            assert answer.status_code == 200
            assert workers(server)[0].pid != worker.pid


def test_an_end_loses_nothing_that_was_accepted(
    artifact_path: Path, noise: bytes, serve: Serve, environment: Environment
) -> None:
    arguments = ["-m", "serving", "--artifact", str(artifact_path)]
    with serve(*arguments, cwd=ROOT, environment=environment) as server:
        batch = [("image", ("a.png", noise))] * 32

        def ask() -> httpx.Response:
            return httpx.post(f"{server.url}/predict_batch", files=batch, timeout=30)

        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(ask) for _ in range(2)]
            depth = 0.0
            while not depth:  # both are accepted once images of the second wait
                depth = _depth(server.url)
            status = server.stop(signal.SIGTERM)
            answers = [each.result() for each in asked]
        assert [answer.status_code for answer in answers] == [200, 200]
        results = [result for answer in answers for result in answer.json()["results"]]
        assert len(results) == 64
        assert all("predictions" in result for result in results)
        assert status == 0
        assert server.survivors() == []


def test_workers_end_after_their_supervisor_was_killed(
    artifact_path: Path, noise: bytes, serve: Serve, environment: Environment, tmp_path: Path
) -> None:
    environment |= {"POCKETNETS_WORKERS": "2", "TMPDIR": str(tmp_path)}  # its folder stays
    arguments = ["-m", "serving", "--artifact", str(artifact_path)]
    batch = [("image", ("a.png", noise))] * 32
    with serve(*arguments, cwd=ROOT, environment=environment) as server:

        def ask() -> httpx.Response:
            return httpx.post(f"{server.url}/predict_batch", files=batch, timeout=30)

        assert len(workers(server)) == 2
        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(ask) for _ in range(2)]
            wait_until(lambda: _depth(server.url) > 0)
            server.process.kill()
            server.process.wait()
            answers = [each.result() for each in asked]
        assert [answer.status_code for answer in answers] == [200, 200]
        wait_until(lambda: server.survivors() == [])
        assert not server.listens()


def test_a_worker_that_cannot_start_leaves_the_others_alone(
    save_artifact: Callable[..., Path],
    tmp_path: Path,
    encoded: Encoded,
    serve: Serve,
    environment: Environment,
) -> None:
    path = save_artifact(tmp_path / "model" / "onnx-fp32")
    environment |= {"POCKETNETS_WORKERS": "2", "POCKETNETS_TOKEN": "s3cret"}
    headers = {"authorization": "Bearer s3cret"}
    arguments = ["-m", "serving", str(path)]
    with serve(*arguments, cwd=ROOT, environment=environment) as server:

        def promote() -> list[Any]:
            """Changes nothing; returns what the workers that have loaded the model say of it."""
            url = f"{server.url}/models/model/promote"
            told: list[Any] = httpx.post(url, headers=headers, timeout=30).json()["workers"]
            return told

        wait_until(lambda: len(promote()) == 2, LOOK_S)  # one answers before the other is there
        first = workers(server)[0]
        (path / "model.onnx").write_bytes(b"broken")
        first.kill()
        wait_until(lambda: "the other workers go on" in server.log(), LOOK_S)
        answer = httpx.post(
            f"{server.url}/predict", content=encoded(), headers=RAW | headers, timeout=30
        )
        assert answer.status_code == 200
        # A change waits for those that answer alone.
        assert len(promote()) == 1
        save_artifact(path)
        wait_until(lambda: len(workers(server)) == 2, LOOK_S)
        assert server.log().count("the other workers go on") <= 2
        assert server.stop(signal.SIGTERM) == 0


def _depth(url: str) -> float:
    lines = httpx.get(f"{url}/metrics", timeout=30).text.splitlines()
    (line,) = [line for line in lines if line.startswith("pocketnets_queue_depth")]
    return float(line.split()[-1])


@pytest.mark.parametrize("count", [1, 2])
def test_a_new_artifact_is_taken_without_a_lost_request(
    make_artifact: Callable[..., Path],
    encoded: Encoded,
    serve: Serve,
    environment: Environment,
    count: int,
) -> None:
    path = make_artifact(scale=0.001)
    environment["POCKETNETS_WORKERS"] = str(count)
    arguments = ["-m", "serving", "--artifact", str(path)]
    with serve(*arguments, cwd=ROOT, environment=environment) as server:
        before = {worker.pid for worker in workers(server)}
        with crowd(server.port, encoded("red"), 4) as clients:
            clients.wait_for(20)
            (path / "manifest.json").rename(path / "away.json")
            os.kill(server.process.pid, signal.SIGHUP)  # broken: the old ones go on
            wait_until(lambda: "goes on as it was loaded" in server.log())
            clients.wait_for(20)
            assert {worker.pid for worker in workers(server)} == before
            make_artifact(scale=0.05)
            os.kill(server.process.pid, signal.SIGHUP)
            wait_until(lambda: not before & {worker.pid for worker in workers(server)}, LOOK_S)
            clients.wait_for(50)
        assert clients.counts.keys() == {200}
        scores = [body["predictions"][0]["score"] for _, _, body in clients.outcomes]
        assert max(scores[:20]) < 0.5 < 0.9 < min(scores[-20:])
        assert len(workers(server)) == count
        assert server.stop(signal.SIGTERM) == 0


def test_a_broken_model_stays_while_the_others_are_reloaded(
    save_artifact: Callable[..., Path],
    encoded: Encoded,
    serve: Serve,
    environment: Environment,
    tmp_path: Path,
) -> None:
    folder = {name: tmp_path / "models" / name for name in "abc"}
    for path in folder.values():
        save_artifact(path, scale=0.001)

    def best(name: str) -> float:
        url = f"{server.url}/models/{name}/predict"
        answer = httpx.post(url, content=encoded("red"), headers=RAW, timeout=30)
        return float(answer.json()["predictions"][0]["score"])

    arguments = ["-m", "serving", *map(str, folder.values())]
    with serve(*arguments, cwd=ROOT, environment=environment) as server:
        before = {worker.pid for worker in workers(server)}
        (folder["a"] / "manifest.json").rename(folder["a"] / "away.json")  # the default
        save_artifact(folder["b"], scale=0.05)
        save_artifact(folder["c"], logits=np.zeros((3, 3), np.float32))  # not its golden batch
        os.kill(server.process.pid, signal.SIGHUP)
        wait_until(lambda: best("b") > 0.9)
        assert max(best("a"), best("c")) < 0.5
        assert {worker.pid for worker in workers(server)} == before
        told = [line for line in server.log().splitlines() if line.startswith(("error", "models"))]
        assert [line.rpartition("; ")[2] for line in told[1:]] == [
            "a:1 goes on as it was loaded",
            "c:1 goes on as it was loaded",
            "models: b:1 is loaded again",
        ]
        assert "golden batch" in told[2]
        for name in "ac":
            save_artifact(folder[name], scale=0.05)
        os.kill(server.process.pid, signal.SIGHUP)
        wait_until(lambda: not before & {worker.pid for worker in workers(server)}, LOOK_S)
        wait_until(server.is_ready)
        assert min(map(best, "abc")) > 0.9
        assert server.stop(signal.SIGTERM) == 0
        assert "Traceback" not in server.log()


def test_ten_times_too_much(
    artifact_path: Path, noise: bytes, serve: Serve, environment: Environment
) -> None:
    environment |= {"POCKETNETS_QUEUE_SIZE": "4", "POCKETNETS_MAX_IMAGES": "4"}
    environment["POCKETNETS_DEADLINE_MS"] = "60000"
    arguments = ["-m", "serving", "--artifact", str(artifact_path)]
    with serve(*arguments, cwd=ROOT, environment=environment) as server:
        with httpx.Client(base_url=server.url, headers=RAW, timeout=60) as client:

            def ask(_: int) -> int:
                answer = client.post("/predict", content=noise)
                if answer.status_code == 429:
                    assert answer.headers["retry-after"] == "1"
                    assert answer.json()["error"] == "busy"
                return answer.status_code

            with ThreadPoolExecutor(60) as pool:
                statuses = Counter(pool.map(ask, range(300)))
            assert ask(0) == 200  # afterwards all is as before
        assert statuses.keys() == {200, 429}
        assert statuses[200] >= 10
        assert _depth(server.url) == 0
        assert server.stop(signal.SIGTERM) == 0
