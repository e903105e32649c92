"""Real clients that offer to upgrade to HTTP/2, as some do unasked."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ASK = Path(__file__).parent / "clients" / "Ask.java"
Encoded = Callable[..., bytes]


@pytest.fixture
def server(artifact_path: Path, serve: Callable[..., Any], environment: dict[str, str]) -> Any:
    arguments = ["-m", "serving", "--artifact", str(artifact_path)]
    with serve(*arguments, cwd=ROOT, environment=environment) as started:
        yield started


@pytest.fixture
def image(encoded: Encoded, tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    path.write_bytes(encoded("blue"))
    return path


def run(*command: object) -> str:
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("javac") is None, reason="there is no JDK on PATH")
def test_the_client_of_java(server: Any, image: Path) -> None:
    lines = run("java", ASK, f"{server.url}/predict", image).splitlines()
    assert len(lines) == 3
    for line in lines:
        status, _, body = line.partition(" ")
        assert status == "200", line
        assert json.loads(body)["predictions"][0]["label"] == "blue"


def _curl_speaks_http2() -> bool:
    return shutil.which("curl") is not None and "HTTP2" in run("curl", "--version")


@pytest.mark.skipif(not _curl_speaks_http2(), reason="there is no curl with HTTP/2 on PATH")
def test_curl_with_http2(server: Any, image: Path) -> None:
    bodies = (
        ("-F", f"image=@{image}"),
        ("--data-binary", f"@{image}", "-H", "Content-Type: image/png"),
        ("-H", "Expect: 100-continue", "-F", f"image=@{image}"),
        ("-H", "Transfer-Encoding: chunked", "-F", f"image=@{image}"),
    )
    for body in bodies:
        out = run("curl", "-sS", "--http2", "-w", r"\n%{http_code}", *body, f"{server.url}/predict")
        answer, _, status = out.rpartition("\n")
        assert status == "200", answer
        assert json.loads(answer)["predictions"][0]["label"] == "blue"
