from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import numpy as np
import pytest
from refused_start import BENTOML, refused

from artifact.opening import open_artifact
from artifact.runtimes import base
from core.errors import UserError
from serving import command
from serving.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
Encoded = Callable[..., bytes]
Environment = dict[str, str]
Serve = Callable[..., Any]  # yields conftest's Server
Refused = Callable[..., str]

HEAVY = ["torch", "torchvision", "pytorch_lightning", "lightning", "onnx", "sklearn", "timm"]


def test_importing_the_service_loads_nothing_heavy(
    artifact_path: Path, environment: Environment
) -> None:
    code = (
        "import json, os, sys, serving.service as s\n"
        "with s.models: pass\n"
        f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**environment, "POCKETNETS_ARTIFACT": str(artifact_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    heavy, telemetry = done.stdout.splitlines()[-2:]
    assert json.loads(heavy) == []
    assert telemetry == "1"  # a server calls nobody by itself


def test_answers_then_leaves_nothing_behind(
    artifact_path: Path, encoded: Encoded, serve: Serve, environment: Environment
) -> None:
    arguments = ["-m", "serving", "--artifact", str(artifact_path)]
    with serve(*arguments, cwd=ROOT, environment=environment) as server:
        with httpx.Client(base_url=server.url) as client:
            form = client.post("/predict", files={"image": ("a.png", encoded("blue"))})
            headers = {"content-type": "image/png"}
            raw = client.post("/predict?top_k=1", content=encoded("red"), headers=headers)
            bad = client.post("/predict", files={"image": ("a.png", b"not an image")})
            large = client.post("/predict", content=bytes(20_000_001), headers=headers)
            model = client.get("/model")
            health = [client.get(path).status_code for path in ("/healthz", "/readyz", "/metrics")]
            assert len(server.family) == 2  # supervisor and worker
        assert form.json()["predictions"][0]["label"] == "blue"
        assert [p["label"] for p in raw.json()["predictions"]] == ["red"]
        assert (bad.status_code, bad.json()["error"]) == (400, "not_an_image")
        assert (large.status_code, large.json()["error"]) == (413, "too_large")
        assert model.json()["labels"] == ["red", "green", "blue"]
        assert health == [200, 200, 200]
        assert server.stop(signal.SIGTERM) == 0
        assert server.survivors() == []
        assert not server.listens()
        log = server.log()
    assert f"serving {artifact_path} with ort-cpu" in log
    assert "Traceback" not in log
    assert "/predict" not in log  # a line for each request costs more than most of its answer


def test_requests_are_logged_on_demand_until_an_interrupt(
    artifact_path: Path, encoded: Encoded, serve: Serve, environment: Environment, tmp_path: Path
) -> None:
    environment |= {"POCKETNETS_ACCESS_LOG": "1", "POCKETNETS_ARTIFACT": str(artifact_path)}
    # Not from the repository's root: the project is found where it is installed.
    with serve("-m", "serving", cwd=tmp_path, environment=environment) as server:
        image = {"image": ("secret.png", encoded("blue"))}
        forwarded = {"x-forwarded-for": "203.0.113.7"}  # which anybody can claim
        httpx.post(f"{server.url}/predict", files=image, headers=forwarded)
        assert server.stop(signal.SIGINT) == 0
        assert server.survivors() == []
        assert not server.listens()
        log = server.log()
    (line,) = [line for line in log.splitlines() if "/predict" in line]
    assert "path=/predict" in line
    assert "status=200" in line
    assert "127.0.0.1" in line
    assert "203.0.113.7" not in line
    assert "secret" not in log


@pytest.fixture
def refused_here(command: Callable[..., Any], environment: Environment) -> Refused:
    """Returns what :func:`refused` does for ``python -m serving``, in this process."""

    def run(*arguments: str) -> str:
        with patch.dict(os.environ, environment, clear=True):  # the command writes to it
            done = command("serving", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        return str(done.stderr.strip())

    return run


def test_refuses_what_is_not_an_artifact(tmp_path: Path, refused_here: Refused) -> None:
    missing = tmp_path / "none"
    message = refused_here("--artifact", str(missing))
    assert message == f"error: {missing}: there is no such folder"
    assert refused_here(str(missing)) == message
    assert refused_here("--repository", str(missing)).endswith(": there is no such folder")
    (tmp_path / "empty").mkdir()
    message = refused_here(str(tmp_path / "empty"))
    assert message.startswith(f"error: {tmp_path / 'empty'}: not an artifact")
    assert "\n" not in message


def test_a_folder_of_models_is_named_as_a_repository(
    artifact_path: Path, refused_here: Refused
) -> None:
    several = artifact_path.parent.parent
    told = f"error: {several}: a folder of models: --repository {several}"
    assert refused_here(str(several)) == refused_here("--artifact", str(several)) == told


def test_refuses_a_port_in_use(artifact_path: Path, port: int, environment: Environment) -> None:
    with socket.create_server(("127.0.0.1", port)):
        arguments = ["-m", "serving", "--artifact", str(artifact_path), "--port", str(port)]
        message = refused(*arguments, environment=environment)
    assert f"port {port} is in use" in message
    assert f"PORT={port + 1}" in message
    assert "\n" not in message


def test_refuses_a_bad_setting(environment: Environment, refused_here: Refused) -> None:
    environment["POCKETNETS_THREADS"] = "x"
    message = refused_here()
    assert message.startswith("error: threads is 'x'")
    assert "\n" not in message


def test_bentoml_refuses_a_changed_artifact(
    make_artifact: Callable[..., Path], port: int, environment: Environment
) -> None:
    path = make_artifact()
    with (path / "model.onnx").open("ab") as file:
        file.write(b"\0")
    environment["POCKETNETS_ARTIFACT"] = str(path)
    message = refused(*BENTOML, "--port", str(port), environment=environment)
    assert "sha256 differs" in message
    assert "\n" not in message


def test_refuses_an_artifact_that_answers_otherwise(
    make_artifact: Callable[..., Path], port: int, environment: Environment
) -> None:
    path = make_artifact(logits=np.ones((3, 3), dtype=np.float32))
    arguments = ["-m", "serving", "--artifact", str(path), "--port", str(port)]
    announced, _, message = refused(*arguments, environment=environment).partition("\n")
    assert announced.startswith("serving ")
    assert "does not reproduce the golden batch" in message
    assert "\n" not in message


def test_bentoml_refuses_an_artifact_that_answers_otherwise(
    make_artifact: Callable[..., Path], port: int, environment: Environment
) -> None:
    path = make_artifact(logits=np.ones((3, 3), dtype=np.float32))
    environment["POCKETNETS_ARTIFACT"] = str(path)
    message = refused(*BENTOML, "--port", str(port), environment=environment)
    assert "does not reproduce the golden batch" in message
    assert "\n" not in message


def test_an_unverified_artifact_is_served_only_on_demand(
    make_artifact: Callable[..., Path],
) -> None:
    path = make_artifact(unverified="no GPU was there", parity=None)
    with pytest.raises(UserError, match=r"no GPU was there.*POCKETNETS_ALLOW_UNVERIFIED=1"):
        open_artifact(path)
    assert open_artifact(path, allow_unverified=True).unverified


def test_the_command_line_demands_it(
    make_artifact: Callable[..., Path], refused_here: Refused
) -> None:
    path = make_artifact(unverified="no GPU was there", parity=None)
    message = refused_here("--artifact", str(path))
    assert "or pass --allow-unverified" in message


def test_a_runtime_of_other_formats_is_refused_before_anything_is_served(
    artifact_path: Path, refused_here: Refused
) -> None:
    message = refused_here("--artifact", str(artifact_path), "--runtime", "litert")
    assert message.startswith("error: runtime is 'litert': onnx-fp32 artifacts run in ort-cpu, ")
    assert "\n" not in message


@pytest.mark.parametrize("flags", [(), ("--runtime", "torch")])
def test_what_no_server_runs_is_refused_whatever_the_runtime(
    artifact_path: Path,
    refused_here: Refused,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
) -> None:
    monkeypatch.setattr(base, "is_servable", lambda name: False)
    assert refused_here("--artifact", str(artifact_path), *flags) == (
        "error: no server, predict or evaluate runs onnx artifacts; bench and verify do"
    )


def test_the_command_line_outdoes_the_environment(
    make_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_artifact()
    monkeypatch.setenv("POCKETNETS_PORT", "1")
    for name in ("HOST", "ALLOW_UNVERIFIED", "ARTIFACT", "RUNTIME"):
        monkeypatch.setenv(f"POCKETNETS_{name}", "")  # restored afterwards
    wanted = command.Serve(artifact=path, port=4000, host="127.0.0.2", allow_unverified=True)
    settings, why = command.settle(wanted)
    assert (settings.artifact, settings.port, settings.host) == (path, 4000, "127.0.0.2")
    assert settings.allow_unverified
    assert why == "by --artifact"
    assert Settings.from_environment() == settings  # what the workers read
    monkeypatch.setenv("POCKETNETS_MODELS", "")
    monkeypatch.setenv("POCKETNETS_REPOSITORY", "")
    _, why = command.settle(command.Serve(models=(f"a={path}",), allow_unverified=True))
    assert why == "first argument"
    repository, name = path.parent.parent, path.parent.name
    for default, told in ((name, "by --default"), (None, "first by name; choose with --default")):
        monkeypatch.setenv("POCKETNETS_ARTIFACT", "")
        monkeypatch.setenv("POCKETNETS_MODELS", "")
        _, why = command.settle(command.Serve(repository=repository, default=default))
        assert why.startswith(told)


def test_help_lists_every_setting(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = command("serving", "--help")
    assert done.returncode == 0
    for field in dataclasses.fields(Settings):
        assert f"POCKETNETS_{field.name.upper()} [" in done.stdout
