"""Runs the commands of the README and the other pages as they are written, in a copy of it all."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from pages import ENVIRONMENT, PAGES, ROOT
from PIL import Image
from sklearn.datasets import load_digits

from artifact.formats import default_names

# The first column of tables of commands, and what stands in blocks; test_docs.py parses the others.
TEXT = "".join(page.read_text() for page in PAGES)
COMMANDS = list(dict.fromkeys(re.findall(r"^\| `(make [^`]+)` \|", TEXT, flags=re.MULTILINE)))
CURLS = list(dict.fromkeys(re.findall(r"^curl .+$", TEXT, flags=re.MULTILINE)))

# Appended to a command to make it short; what is asked of the house stays the same.
SHORTER = {
    "make train": 'ARGS="--recipe.epochs 1"',
    "make export MODEL=mobilenet_v3 WEIGHTS=random": "ARGS='--formats onnx-fp32'",
    "make export": "ARGS='--formats onnx-fp32 onnx-fp16'",
    "make bench": "ARGS=--quick",
    "make load": "ARGS=--quick",
}

# These have a test of their own below, or need a GPU.
ELSEWHERE = ("make demo", "make serve", "make load", "make gpu-check")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a copy of the tracked files beside the same virtual environment."""
    if shutil.which("curl") is None:
        pytest.skip("the README's commands need curl")
    if not (Path(sys.prefix) / ".ready").exists():
        pytest.skip("not the environment of make setup: run these with make test")
    copy = tmp_path_factory.mktemp("house")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)  # with times: make would set up again otherwise
    (copy / ".venv").symlink_to(sys.prefix)
    return copy


def run(command: str, house: Path, *, allowed: tuple[int, ...] = (0,)) -> str:
    """Returns what ``command`` printed on stdout; on another status than ``allowed``, shows all."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=house,
        env={**ENVIRONMENT, "BENTOML_HOME": str(house / "bentoml")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode in allowed, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def left_over(house: Path) -> list[str]:
    """Returns the command lines of processes that still run in ``house``."""
    found = []
    for process in psutil.process_iter(["cwd", "cmdline"]):
        if str(process.info["cwd"] or "").startswith(str(house)):
            found.append(" ".join(process.info["cmdline"] or []))
    return found


def test_make_alone_lists_the_targets(house: Path) -> None:
    assert "demo" in run("make", house)


def test_demo(house: Path) -> None:
    printed = run("make demo", house)
    top1 = re.search(r"held-out top-1 ([\d.]+)% on 359 images", printed)
    assert top1 is not None
    assert float(top1[1]) >= 95
    assert "runs/mobilenet_v3_large-digits/checkpoint.ckpt" in printed
    for artifact in default_names():
        assert re.search(rf"│ {artifact} ", printed)
        assert (house / "artifacts/mobilenet_v3_large-digits" / artifact / "manifest.json").exists()
    answers = re.findall(r"│ +(\d) │ +(\d) │ +[\d.]+% │", printed)
    assert len(answers) == 8
    assert sum(truth == prediction for truth, prediction in answers) >= 7
    assert (house / "reports/latency.html").exists()
    assert len(re.findall(r"^  make ", printed, flags=re.MULTILINE)) == 3
    assert left_over(house) == []


def test_serve_curl_and_load(house: Path) -> None:
    # Before anything below trains for one epoch only: the demo's network knows its digits.
    digits = load_digits()
    grey = (digits.images[6] * (255 / 16)).astype("uint8")
    Image.fromarray(grey).save(house / "digit.png")
    (serve,) = [command for command in COMMANDS if command.startswith("make serve MODEL")]
    with serving(serve, house) as address:
        # The README's port may be taken on this machine; everything else is as written.
        form, raw, text, model = (
            run(f"{curl} --silent --fail".replace("127.0.0.1:3000", address), house)
            for curl in CURLS
        )
        # It fails unless every answer is a 200. Beside other work its open loop, which does not
        # wait, may find the queue full: that is a matter of time, and right.
        load = f"make load PORT={address.split(':')[1]} {SHORTER['make load']}"
        printed = run(load, house, allowed=(0, 2))
    assert f'"label":"{digits.target[6]}"' in form
    assert f'"label":"{digits.target[6]}"' in raw
    assert f'"label":"{digits.target[6]}"' in text
    assert '"model":"mobilenet_v3_large"' in model
    answers = r"^Answers: 200 x [\d,]+(, 429 x [\d,]+)?\.$"
    assert re.search(answers, printed, flags=re.MULTILINE)
    assert printed.splitlines()[-1] == "reports/load.md"
    assert left_over(house) == []


def test_a_demo_that_is_stopped_leaves_nothing_running(house: Path) -> None:
    with subprocess.Popen(
        ["make", "demo"],
        cwd=house,
        env=ENVIRONMENT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as demo:
        before = sorted((house / "runs").iterdir())
        deadline = time.monotonic() + 60
        while sorted((house / "runs").iterdir()) == before:  # training has begun
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(demo.pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while left_over(house) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_over(house) == []


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith(ELSEWHERE)])
def test_command(command: str, house: Path) -> None:
    short = next((short for start, short in SHORTER.items() if command.startswith(start)), "")
    assert run(f"{command} {short}", house)


@contextmanager
def serving(command: str, house: Path) -> Iterator[str]:
    """Yields the address of ``command`` started on a free port, once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [*command.split(), f"PORT={port}"],
        cwd=house,
        env=ENVIRONMENT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        ready = f"curl --silent --fail --retry 60 --retry-delay 1 --retry-all-errors http://127.0.0.1:{port}/readyz"
        run(ready, house)
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(30)
