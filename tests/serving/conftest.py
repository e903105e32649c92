"""Images as the bytes of a file, a Bento, and real servers."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from live_page import Site, served
from PIL import Image

from artifact.artifact import Artifact
from artifact.records import Metrics
from serving.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """Returns a function that returns an image of one colour as the bytes of a file."""

    def encode(
        colour: object = "red", format: str = "PNG", size: tuple[int, int] = (40, 50)
    ) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", size, colour).save(file, format)  # type: ignore[arg-type]
        return file.getvalue()

    return encode


@pytest.fixture(scope="session")
def environment_at() -> Callable[[Path], dict[str, str]]:
    """Returns a function that returns :func:`environment` with a BentoML home in a folder."""
    return lambda folder: _environment(folder / "bentoml")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Returns variables for a subprocess: this process's without ours, its own BentoML home."""
    return _environment(tmp_path / "bentoml")


def _environment(bentoml_home: Path) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("POCKETNETS_", "BENTO"))}
    return {
        **inherited,
        "BENTOML_HOME": str(bentoml_home),
        "BENTOML_DO_NOT_TRACK": "True",
    }


@pytest.fixture(scope="session")
def build_bento(artifact_path: Path) -> Callable[..., Path]:
    """Returns what builds a Bento of the tiny artifact, in a BentoML home in the given folder.

    It returns the Bento's folder. What it was built from is gone: a Bento stands alone.
    """

    def build(folder: Path, *arguments: str) -> Path:
        source, home = folder / "source", folder / "bentoml"
        ignore = shutil.ignore_patterns("__pycache__", "artifact", "runtime.txt")
        for package in ("core", "artifact", "serving"):
            shutil.copytree(ROOT / package, source / package, ignore=ignore)
        built = subprocess.run(
            [sys.executable, "-m", "serving.bento", "--artifact", str(artifact_path), *arguments],
            cwd=source,
            env=_environment(home),
            capture_output=True,
            text=True,
            check=False,
        )
        assert built.returncode == 0, built.stderr
        shutil.rmtree(source)
        name, _, version = built.stdout.strip().partition(":")
        return home / "bentos" / name / version

    return build


@pytest.fixture(scope="session")
def bento(
    build_bento: Callable[..., Path], made_once: Callable[[str, Callable[[Path], object]], Path]
) -> Path:
    """Returns the folder of a Bento of the tiny artifact that runs with the default runtime."""
    (built,) = made_once("bento", build_bento).glob("bentoml/bentos/*/*/bento.yaml")
    return built.parent


@pytest.fixture
def port() -> int:
    """Returns a port of 127.0.0.1 that nothing listens on."""
    return _free_port()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def talk(artifact_path: Path, port: int) -> Callable[..., None]:
    """Returns :func:`grpc_client.talk` with settings of a small service, and changes to them."""
    import grpc_client

    def run(say: Callable[..., Any], **changes: Any) -> None:
        usual = {"artifact": artifact_path, "threads": 1, "grpc_port": port, "max_bytes": 100_000}
        grpc_client.talk(say, Settings(**{**usual, **changes}))

    return run


class Server:
    """A started server: its address, and how to stop it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self._log = log
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.family: list[psutil.Process] = []

    def wait_ready(self, seconds: float = 60) -> None:
        """Returns once ``/readyz`` says so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log()
            if self.is_ready():
                break
            time.sleep(0.05)
        else:
            raise AssertionError("not ready in time")
        parent = psutil.Process(self.process.pid)
        self.family = [parent, *parent.children(recursive=True)]

    def is_ready(self) -> bool:
        """Returns whether ``/readyz`` answers 200."""
        if not self.listens():  # a client, which reads certificates, takes 20 ms of CPU time
            return False
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:  # not ready, or gone
            return False

    def log(self) -> str:
        """Returns what it has written so far, on stdout and stderr."""
        return self._log.read_text()

    def stop(self, signum: int) -> int:
        """Returns the exit status after ``signum``."""
        self.process.send_signal(signum)
        return self.process.wait(30)

    def listens(self) -> bool:
        """Returns whether something accepts connections on the port."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def survivors(self) -> list[psutil.Process]:
        """Returns the processes of this server that are still there."""
        return [process for process in self.family if process.is_running()]


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., object]:
    """Returns a context manager: the server that ``python *arguments`` becomes on a free port.

    It writes to a file: a pipe that nobody reads fills up, and then the server waits.
    """

    @contextmanager
    def served(*arguments: str, cwd: Path, environment: dict[str, str]) -> Iterator[Server]:
        port, log = _free_port(), tmp_path_factory.mktemp("served") / "log"
        environment = {**environment, "POCKETNETS_PORT": str(port)}
        command = [sys.executable, *arguments]
        with (
            log.open("wb") as out,
            subprocess.Popen(
                command, cwd=cwd, env=environment, stdout=out, stderr=subprocess.STDOUT
            ) as process,
        ):
            server = Server(process, port, log)
            try:
                server.wait_ready()
                yield server
            finally:
                if process.poll() is None:
                    server.stop(signal.SIGTERM)
                for left in server.survivors():
                    left.kill()

    return served


@pytest.fixture(scope="module")
def _site(artifact_path: Path) -> Iterator[Site]:
    metrics = Metrics(top1=0.75, torch_top1=0.75, images=16, runtime="ort-cpu")
    with served(dataclasses.replace(Artifact.load(artifact_path), metrics=metrics)) as started:
        yield started


@pytest.fixture
def site(_site: Site) -> Iterator[Site]:
    """Returns the service of :func:`artifact_path` with its page; see tests/browsing/live_page."""
    yield _site
    _site.token, _site.broken = None, False
