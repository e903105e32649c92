"""The whole road on real images: train, export, bench, serve, ask. Run by ``make demo``.

Each step is the command a user would type; nothing here knows more than those commands say.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tyro
from PIL import Image
from rich.table import Table

from bench.measure.timing import Plan
from core import cli
from core.errors import UserError
from core.preprocess import encode_png
from training.data import ImageData
from training.datasets import load_data

MODEL, DATA = "mobilenet_v3", "digits"
ASKED = 8  # held-out images that are sent to the service
START_S, STOP_S = 60, 30  # what the service gets to become ready, and to finish
ANSWER_S = 10  # and to answer

notes = cli.notes()


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Train, export, bench, report, serve and ask: the whole road on scikit-learn's digits."""

    seconds: float = 3.0
    """Of measuring each artifact in each runtime; 0.2 is enough for a first look."""
    epochs: int | None = None
    """Of training; 4 are enough for a first look. Default: those of the recipe."""


def main() -> None:
    """Runs every step; the first that fails ends the demo and leaves nothing running."""
    flags = tyro.cli(Demo, prog="python demo.py")
    plan = Plan(seconds=flags.seconds, limit=flags.seconds)  # refuses a bad number, before training
    started = time.monotonic()
    which = ["--model", MODEL, "--data", DATA]
    epochs = [] if flags.epochs is None else ["--recipe.epochs", f"{flags.epochs}"]
    # --fresh: a demo that was stopped may be repeated
    step("1/4 train", "training", *which, "--fresh", *epochs)
    step("2/4 export", "export", "run", *which)
    measured = ["--seconds", f"{plan.seconds:g}", "--limit", f"{plan.limit:g}"]
    step("3/4 bench", "bench", "run", *which, *measured)
    headline("4/4 serve")
    with service(*which) as url:
        cli.results().print(answers(url, load_data(DATA)))
    print(f"done in {time.monotonic() - started:.0f} s; the report: {Path('reports/latency.html')}")
    print("try next:")
    print(f"  make serve MODEL={MODEL} DATA={DATA}        # then POST your own image to /predict")
    print(f"  make bento MODEL={MODEL} DATA={DATA}        # pack that service, without torch")
    print(f"  make train MODEL={MODEL} DATA=path/to/folder  # one folder of images per class")


def headline(text: str) -> None:
    """Marks the start of a step on stderr."""
    notes.rule(f"[bold]{text}", align="left")


def step(title: str, module: str, *arguments: str) -> None:
    """Runs ``python -m module`` to its end; raises UserError if it fails."""
    headline(title)
    status = subprocess.run([sys.executable, "-m", module, *arguments]).returncode
    if status:
        raise UserError(f"the demo stopped: step {title} ended with status {status}")


@contextmanager
def service(*arguments: str) -> Iterator[str]:
    """Yields the address of a service that is ready; it is stopped when the block ends."""
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "serving", *arguments, "--port", url.rpartition(":")[2]]
    server = subprocess.Popen(command)
    try:
        wait_until_ready(server, url)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()
            raise UserError(f"the service did not stop within {STOP_S} s and was killed") from None
    if server.returncode not in (0, -signal.SIGTERM):
        raise UserError(f"the service ended with status {server.returncode}")


def wait_until_ready(server: subprocess.Popen[bytes], url: str) -> None:
    """Returns when ``url`` answers that it is ready; raises UserError if it never does."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise UserError(f"the service ended with status {server.returncode} before it was up")
        if is_ready(url):
            return
        time.sleep(0.1)
    raise UserError(f"the service was not ready within {START_S} s")


def is_ready(url: str) -> bool:
    """Returns whether the service at ``url`` answers that it is ready."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=1):
            return True
    except (urllib.error.URLError, TimeoutError):  # not listening yet, or not ready
        return False


def answers(url: str, data: ImageData) -> Table:
    """Returns a table of predictions for held-out images, beside the truth."""
    table = Table(title=f"held-out images, POSTed to {url}/predict", title_justify="left")
    for name in ("truth", "prediction", "score", "decode", "resize", "inference"):
        table.add_column(name, justify="right")
    for image, label in data.val[:ASKED]:
        assert isinstance(image, Image.Image)
        headers = {"Content-Type": "image/png"}
        request = urllib.request.Request(f"{url}/predict?top_k=1", encode_png(image), headers)
        with urllib.request.urlopen(request, timeout=ANSWER_S) as response:
            answer = json.load(response)
        best, timings = answer["predictions"][0], answer["timings_ms"]
        table.add_row(
            data.labels[label],
            best["label"],
            f"{best['score']:.1%}",
            *(f"{timings[name]:.1f} ms" for name in ("decode", "resize", "inference")),
        )
    return table


def free_port() -> int:
    """Returns a TCP port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


if __name__ == "__main__":
    cli.run(main)
