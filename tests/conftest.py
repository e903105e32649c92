"""What all tests share: which of them run, one small trained network, and one tiny artifact."""

from __future__ import annotations

import os

# Before torch starts its threads. They wait for each other in a busy loop, and where other work,
# such as a second test, takes one of their cores, all of them wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # for ncnn, which is told how many to start
# What a test captures is piped, and piped tables are not cut unless COLUMNS says so: pytest-xdist
# hands the width of its own terminal down to the processes that test.
os.environ.pop("COLUMNS", None)

import copy
import ctypes
import dataclasses
import fcntl
import functools
import gc
import importlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from chromium import Browser, find_chromium
from onnx import TensorProto, helper
from tiny_artifact import tiny_artifact

from artifact.artifact import write_artifact
from artifact.records import Logits, Source
from core import cli
from core.files import staged
from core.preprocess import Pixels

pytest_plugins = ("exported", "fake_gpu", "house", "several_labels")

SIDE = 32
SCALE = 0.05
# The files that take longest. They come first: at the end no worker waits for another.
LONG = (
    "test_demo.py",
    "test_readme.py",
    "test_resume.py",
    "test_int8.py",
    "test_tour.py",
)
LONG += ("test_cost.py", "test_supervisor.py", "test_foreign.py", "test_parity.py")
LONG += ("test_studies.py", "test_to_onnx.py", "test_jobs.py")


def pytest_configure() -> None:
    # A shell that runs the tests in the background has them ignore Ctrl-C, and with them the
    # commands that they start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()  # while tests are collected, which imports much and leaves little garbage


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
    without_slow = pytest.mark.skip(reason="takes minutes; run with --slow")
    gpu = _has_driver()
    without_gpu = pytest.mark.skip(reason="there is no NVIDIA driver on this machine")
    with_gpu = pytest.mark.skip(reason="there is an NVIDIA driver on this machine")
    for item in items:
        # Not item.keywords: those hold the names of folders, too.
        marks = {mark.name for mark in item.iter_markers()}
        if "slow" in marks and not config.getoption("--slow"):
            item.add_marker(without_slow)
        if "gpu" in marks and not gpu:
            item.add_marker(without_gpu)
        if "no_gpu" in marks and gpu:
            item.add_marker(with_gpu)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    # The collector looks at every object for garbage: those of the imports took it 0.3 s each time.
    gc.freeze()
    gc.enable()
    gc.set_threshold(10_000, 10, 10)  # as cli.collect_rarely does: what tests import is not frozen


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.fixture(scope="session", autouse=True)
def _commands_leave_the_collector_alone() -> Iterator[None]:
    """Keeps a command that ends from freezing all objects: here the process goes on."""
    with pytest.MonkeyPatch.context() as patch:
        stub = SimpleNamespace(freeze=lambda: None, set_threshold=lambda *_: None)
        patch.setattr("core.cli.gc", stub)
        yield


@pytest.fixture(scope="session", autouse=True)
def _operators_are_read_once() -> Iterator[None]:
    """Keeps torch's table of ONNX operators, which it else reads anew for each export.

    That takes half a second of CPU time, more than the rest of the export of a few layers.
    """
    if "export.to_onnx" not in sys.modules:  # no test here exports, and the import takes as long
        yield
        return
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    read = functools.cache(ONNXRegistry.from_torchlib)

    def copied(opset_version: int) -> ONNXRegistry:
        registry = copy.copy(read(opset_version))  # exports add operators of their own
        registry.functions = {name: list(found) for name, found in registry.functions.items()}
        return registry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(copied))
        yield


@pytest.fixture(scope="session")
def made_once(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Callable[[str, Callable[[Path], object]], Path]:
    """Returns what makes a folder by a function; of several workers the first makes it.

    The others wait, and get a copy of their own.
    """

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        folder = tmp_path_factory.mktemp(name)
        if worker_id == "master":
            make(folder)
            return folder
        shared = tmp_path_factory.getbasetemp().parent / f"shared-{name}"
        with open(f"{shared}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if shared.exists():
                shutil.copytree(shared, folder, dirs_exist_ok=True)
            else:
                make(folder)
                shutil.copytree(folder, shared)
        return folder

    return make_once


@pytest.fixture(scope="session")
def trained(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """Returns a folder with ``runs/mobilenet_v3_large-digits``, trained for two short epochs."""
    from training.datasets import load_data
    from training.fit import fit
    from training.recipe import Recipe

    recipe = Recipe(
        epochs=2,
        batch_size=64,
        learning_rate=3e-3,
        bn_momentum=0.5,
        resize=32,
        crop=32,
        min_scale=1.0,
        flip=False,
    )

    def train(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr("training.fit.write_summary", lambda *_: None)  # which no test reads
            fit("mobilenet_v3", load_data("digits"), recipe)

    return made_once("trained", train)


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Returns what does as ``python -m PACKAGE ARGUMENTS`` here: a process takes seconds to start.

    Logs of what ran before are not part of its answer.
    """

    def run(package: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        main = importlib.import_module(f"{package}.__main__").main
        monkeypatch.setattr(sys, "argv", [package, *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.run(main)
        out, err = capsys.readouterr()
        code = ended.value.code
        if isinstance(code, int):
            return subprocess.CompletedProcess(sys.argv, code, out, err)
        return subprocess.CompletedProcess(sys.argv, 1, out, f"{err}{code}\n")  # as Python does

    return run


@pytest.fixture(scope="session")
def _chromium() -> Iterator[Browser]:
    path = find_chromium()
    if path is None:
        missing = "no Chromium on PATH; apt-get install chromium"
        if os.environ.get("CI"):  # .ci/run installs it: without it pages would go unseen
            pytest.fail(missing)
        pytest.skip(missing)
    with Browser(path) as started:
        yield started


@pytest.fixture
def browser(_chromium: Browser) -> Iterator[Browser]:
    """Returns a headless Chromium; see tests/browsing/chromium.py for what it can do."""
    yield _chromium
    _chromium.close_pages()


@pytest.fixture
def in_trained(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs the test inside the folder of :func:`trained`."""
    monkeypatch.chdir(trained)
    return trained


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs the test inside an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _one_torch_thread_count() -> Iterator[None]:
    """Undoes what a runtime does to torch's thread count, which belongs to the process."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def _save_artifact(path: Path, *, scale: float = SCALE, **changes: object) -> Path:
    """Returns ``path``, now an artifact; ``changes`` replace manifest fields, or ``logits``."""
    pixels: Pixels = np.random.default_rng(0).integers(
        0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8, endpoint=False
    )
    pixels[0, ..., 0], pixels[1, ..., 1], pixels[2, ..., 2] = 255, 255, 255
    logits: Logits = (pixels.mean(axis=(1, 2)) * scale).astype(np.float32)
    logits = changes.pop("logits", logits)  # type: ignore[assignment]
    with staged(path) as folder:
        onnx.save(_graph(scale), folder / "model.onnx")
        source = Source(checkpoint="runs/secret/last.ckpt", sha256=None, origin="made by hand")
        artifact = tiny_artifact(folder, SIDE, weights="random", source=source)
        write_artifact(dataclasses.replace(artifact, **changes), pixels, logits)  # type: ignore[arg-type]
    return path


def _graph(scale: float) -> onnx.ModelProto:
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
        [helper.make_tensor("scale", TensorProto.FLOAT, [], [scale])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.fixture(scope="session")
def artifact_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a tiny artifact: its three logits are the mean of each colour channel."""
    return _save_artifact(tmp_path_factory.mktemp("artifacts") / "channels-colours" / "onnx-fp32")


@pytest.fixture(scope="session")
def save_artifact() -> Callable[..., Path]:
    """Returns what makes a folder an artifact, with what :func:`make_artifact` takes."""
    return _save_artifact


@pytest.fixture
def make_artifact(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that makes an artifact of another ``scale``, manifest or ``logits``."""
    return lambda **changes: _save_artifact(tmp_path / "made" / "onnx-fp32", **changes)
