"""What all tests share: which of them run, and one small trained network with its artifacts."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    without_slow = pytest.mark.skip(reason="takes minutes; run with --slow")
    gpu = _has_driver()
    without_gpu = pytest.mark.skip(reason="there is no NVIDIA driver on this machine")
    with_gpu = pytest.mark.skip(reason="there is an NVIDIA driver on this machine")
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(without_slow)
        if "gpu" in item.keywords and not gpu:
            item.add_marker(without_gpu)
        if "no_gpu" in item.keywords and gpu:
            item.add_marker(with_gpu)


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with ``runs/mobilenet_v3_large-digits``, trained for two short epochs."""
    from training.data import load_data
    from training.fit import fit
    from training.recipe import Recipe

    folder = tmp_path_factory.mktemp("trained")
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
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fit("mobilenet_v3", load_data("digits"), recipe)
    return folder


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
