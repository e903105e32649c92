"""Runs the demo, and asks what it made as the README says, in a copy of it all."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from house import left_over, run
from pages import CURLS, ENVIRONMENT, TABLED
from PIL import Image
from sklearn.datasets import load_digits

from artifact.formats import default_names


def test_demo(house: Path) -> None:
    # All steps as they are, but for the time that training and bench take.
    printed = run('make demo ARGS="--epochs 4 --seconds 0.2"', house)
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
    # What the demo has left: its network knows its digits.
    digits = load_digits()
    grey = (digits.images[6] * (255 / 16)).astype("uint8")
    Image.fromarray(grey).save(house / "digit.png")
    (serve,) = [command for command in TABLED if command.startswith("make serve MODEL")]
    with serving(serve, house) as address:
        # The README's port may be taken on this machine; everything else is as written.
        form, raw, text, model, inference = (
            run(f"{curl} --silent --fail".replace("127.0.0.1:3000", address), house)
            for curl in CURLS
            if "$POCKETNETS_TOKEN" not in curl  # those change models, which needs a token
        )
        # It fails unless every answer is a 200. Beside other work its open loop, which does not
        # wait, may find the queue full: that is a matter of time, and right.
        load = f"make load PORT={address.split(':')[1]} ARGS=--quick"
        printed = run(load, house, allowed=(0, 2))
    assert f'"label":"{digits.target[6]}"' in form
    assert f'"label":"{digits.target[6]}"' in raw
    assert f'"label":"{digits.target[6]}"' in text
    assert '"model":"mobilenet_v3_large"' in model
    assert f":{digits.target[6]}:{digits.target[6]}" in inference
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
        deadline = time.monotonic() + 600
        try:
            while sorted((house / "runs").iterdir()) == before:  # training has begun
                assert time.monotonic() < deadline
                time.sleep(0.1)
        finally:
            os.killpg(demo.pid, signal.SIGTERM)
    deadline = time.monotonic() + 300
    while left_over(house) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_over(house) == []


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
        server.wait(300)
