"""A tiny real artifact (its three logits are the mean of each colour channel), and real servers."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper
from PIL import Image

from export.artifact import Artifact, write_artifact
from export.records import Limits, Logits, Parity, Source, TensorSpec
from models.files import staged
from models.preprocess import Pixels, Preprocess

SIDE = 32
PARITY = Parity(
    runtime="ort-cpu",
    reference="torch",
    images=3,
    batches=(1,),
    finite=True,
    top1_agreement=1.0,
    relative_error=0.0,
    golden_error=0.0,
)
LIMITS = Limits(top1_agreement=1.0, top1_drop=None, golden_error=1e-3)
LABELS = ("red", "green", "blue")
SCALE = 0.05


def _save_artifact(path: Path, **changes: object) -> Path:
    """Returns ``path``, now an artifact; ``changes`` replace manifest fields, or ``logits``."""
    pixels: Pixels = np.random.default_rng(0).integers(
        0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8, endpoint=False
    )
    pixels[0, ..., 0], pixels[1, ..., 1], pixels[2, ..., 2] = 255, 255, 255
    logits: Logits = (pixels.mean(axis=(1, 2)) * SCALE).astype(np.float32)
    logits = changes.pop("logits", logits)  # type: ignore[assignment]
    with staged(path) as folder:
        onnx.save(_graph(), folder / "model.onnx")
        artifact = Artifact(
            path=folder,
            model="channels",
            data="colours",
            weights="random",
            precision="fp32",
            format="onnx",
            labels=LABELS,
            preprocess=Preprocess(resize=SIDE, crop=SIDE),
            input=TensorSpec(name="pixels", dtype="uint8", shape=("batch", SIDE, SIDE, 3)),
            output=TensorSpec(name="logits", dtype="float32", shape=("batch", 3)),
            batch_range=(1, 2),
            macs=0,
            parameters=0,
            parity=PARITY,
            limits=LIMITS,
            metrics=None,
            unverified=None,
            source=Source(checkpoint="runs/secret/last.ckpt", sha256=None, origin="made by hand"),
            versions={},
            sha256s={},
        )
        write_artifact(dataclasses.replace(artifact, **changes), pixels, logits)  # type: ignore[arg-type]
    return path


def _graph() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("Mul", ["means", "scale"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "channels",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor("scale", TensorProto.FLOAT, [], [SCALE])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.fixture(scope="session")
def artifact_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save_artifact(tmp_path_factory.mktemp("artifacts") / "channels-colours" / "onnx-fp32")


@pytest.fixture
def make_artifact(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that makes an artifact with other manifest fields or ``logits``."""
    return lambda **changes: _save_artifact(tmp_path / "made" / "onnx-fp32", **changes)


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


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Returns variables for a subprocess: this process's without ours, its own BentoML home."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("POCKETNETS_", "BENTO"))}
    return {
        **inherited,
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
    }


@pytest.fixture
def port() -> int:
    """Returns a port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A started server: its address, and how to stop it."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.family: list[psutil.Process] = []

    def wait_ready(self, seconds: float = 60) -> None:
        """Returns once ``/readyz`` says so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.process.communicate()
            if self.is_ready():
                break
            time.sleep(0.05)
        else:
            raise AssertionError("not ready in time")
        parent = psutil.Process(self.process.pid)
        self.family = [parent, *parent.children(recursive=True)]

    def is_ready(self) -> bool:
        """Returns whether ``/readyz`` answers 200."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:  # not listening yet
            return False

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


@pytest.fixture
def serve(port: int) -> Callable[..., object]:
    """Returns a context manager: the server that ``python *arguments`` becomes on ``port``."""

    @contextmanager
    def served(*arguments: str, cwd: Path, environment: dict[str, str]) -> Iterator[Server]:
        with subprocess.Popen(
            [sys.executable, *arguments],
            cwd=cwd,
            env={**environment, "POCKETNETS_PORT": str(port)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            server = Server(process, port)
            try:
                server.wait_ready()
                yield server
            finally:
                if process.poll() is None:
                    server.stop(signal.SIGTERM)
                for left in server.survivors():
                    left.kill()

    return served
