"""Engines that cannot be had, that do not fit, and that run; TensorRT is played."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from artifact.artifact import Artifact
from artifact.fingerprint import EngineMismatch
from artifact.runtimes.base import RuntimeUnavailable, load_runtime
from bench.gpu import engine
from bench.gpu.engine import FILE, Engine, run
from bench.gpu.process import RESULT, Budget
from core.errors import UserError
from core.record_file import read_rows

WRONG = "built for compute capability 8.6, here is 9.0 (NVIDIA Made-Up 1)"


@pytest.fixture
def artifact(make_artifact: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch) -> Artifact:
    """Makes tensorrt-rtx build a tiny artifact; TensorRT is not installed."""
    tiny = make_artifact()

    def flavour(name: str) -> Any:
        if name == "tensorrt":
            raise RuntimeUnavailable("tensorrt: No module named 'tensorrt'; pip install ...")
        return SimpleNamespace(__version__="1.7.1")

    monkeypatch.setattr(engine, "import_flavour", flavour)
    monkeypatch.setattr(engine, "_build", lambda name, model: tiny)
    return tiny


def test_an_engine_that_runs_is_timed(
    tmp_path: Path, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        engine, "load_runtime", lambda name, artifact: load_runtime("ort-cpu", artifact)
    )
    said = run(tmp_path, Budget(60))
    rtx, other = read_rows(tmp_path / FILE, Engine)
    assert (rtx.flavour, rtx.version, rtx.built, rtx.reason) == (
        "tensorrt_rtx",
        "1.7.1",
        True,
        None,
    )
    assert rtx.p50 is not None
    assert 0 < rtx.p50 < 1
    assert (other.flavour, other.built, other.p50) == ("tensorrt", False, None)
    assert said.startswith("tensorrt-rtx: p50 ")
    assert said.endswith("; tensorrt: No module named 'tensorrt'; pip install ...")


def test_a_refusal_is_recorded_in_the_words_of_both(
    tmp_path: Path,
    artifact: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(name: str, artifact: Artifact) -> None:
        raise EngineMismatch(artifact, WRONG)

    def library(name: str, artifact: Artifact) -> str:
        # The row is there before the library is asked: it may end the process.
        (before,) = read_rows(tmp_path / FILE, Engine)
        assert (before.reason, before.refusal) == (WRONG, None)
        return "tensorrt-rtx cannot load model.engine: unsupported SM"

    monkeypatch.setattr(engine, "load_runtime", refuse)
    monkeypatch.setattr(engine, "_refusal", library)
    said = run(tmp_path, Budget(60))
    rtx, _ = read_rows(tmp_path / FILE, Engine)
    assert (rtx.built, rtx.p50, rtx.reason) == (True, None, WRONG)
    assert rtx.refusal == "tensorrt-rtx cannot load model.engine: unsupported SM"
    assert said.startswith(f"tensorrt-rtx: {WRONG} (the library: tensorrt-rtx cannot load")
    assert f"{RESULT}tensorrt-rtx: {WRONG}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UserError("tensorrt_rtx: no kernel for this layer"), "tensorrt_rtx: no kernel"),
        (RuntimeError("bad alloc\n at 0x0"), "RuntimeError: bad alloc"),
    ],
)
def test_what_cannot_be_built_is_a_reason(
    tmp_path: Path,
    artifact: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
) -> None:
    def fail(name: str, model: str) -> Artifact:
        raise error

    monkeypatch.setattr(engine, "_build", fail)
    run(tmp_path, Budget(60))
    rtx, _ = read_rows(tmp_path / FILE, Engine)
    assert not rtx.built
    assert str(rtx.reason).startswith(reason)


def test_what_the_library_says_is_asked_of_it(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    import artifact.runtimes.tensorrt_engine as module

    def refuse(*_: Any) -> None:
        raise RuntimeUnavailable("tensorrt-rtx cannot load it: SM90 is not supported")

    monkeypatch.setattr(module, "EngineRuntime", refuse)
    said = engine._refusal("tensorrt_rtx", artifact)
    assert said == "tensorrt-rtx cannot load it: SM90 is not supported"
    works = lambda *_: nullcontext(load_runtime("ort-cpu", artifact))  # noqa: E731
    monkeypatch.setattr(module, "EngineRuntime", works)
    assert engine._refusal("tensorrt_rtx", artifact).startswith("none: it loads the engine")
