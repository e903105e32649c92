from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from artifact.artifact import Artifact
from artifact.runtimes import base
from artifact.runtimes.base import (
    RUNTIMES,
    RuntimeUnavailable,
    list_runtimes,
    load_runtime,
    require_runtime,
)
from core.errors import UserError


@pytest.mark.parametrize("name", ["ort-cpu", "openvino", "torch"])
def test_refuses_what_the_contract_does_not_allow(
    artifacts: dict[str, Artifact], in_trained: Path, name: str
) -> None:
    with load_runtime(name, artifacts["onnx-fp32"], threads=1) as runtime:
        for pixels, reason in (
            (np.zeros((1, 32, 32, 3), np.float32), "pixels are float32"),
            (np.zeros((1, 3, 32, 32), np.uint8), r"takes uint8 \['batch', 32, 32, 3\]"),
            (np.zeros((0, 32, 32, 3), np.uint8), "a batch of 0: onnx-fp32 takes 1 to 32"),
            (np.zeros((33, 32, 32, 3), np.uint8), "a batch of 33: onnx-fp32 takes 1 to 32"),
        ):
            with pytest.raises(UserError, match=reason):
                runtime(pixels)


@pytest.mark.no_gpu
@pytest.mark.parametrize(
    ("name", "artifact"),
    [
        ("ort-cuda", "onnx-fp16"),
        ("torch-cuda", "onnx-fp32"),
        ("torch-cuda-compile", "onnx-fp16"),
        ("tensorrt-rtx", "tensorrt_rtx-fp16"),
    ],
)
def test_without_a_gpu_nothing_falls_back(
    artifacts: dict[str, Artifact], name: str, artifact: str
) -> None:
    with pytest.raises(RuntimeUnavailable, match=f"{name}: no NVIDIA driver on this machine"):
        load_runtime(name, artifacts[artifact])


def test_unknown_and_unfit_runtimes(artifacts: dict[str, Artifact]) -> None:
    with pytest.raises(UserError, match="unknown runtime 'ort': did you mean ort-"):
        load_runtime("ort", artifacts["onnx-fp32"])
    with pytest.raises(UserError, match="tensorrt-rtx does not run onnx-fp32 artifacts; use torch"):
        load_runtime("tensorrt-rtx", artifacts["onnx-fp32"])
    assert list_runtimes("tensorrt_rtx") == ["tensorrt-rtx"]


def test_torch_says_where_its_checkpoint_should_be(
    artifacts: dict[str, Artifact], here: Path
) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"checkpoint runs/.* is not here"):
        load_runtime("torch", artifacts["onnx-fp32"])


def test_weights_of_8_bits_need_sums_of_32(
    artifacts: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    seven = artifacts["onnx-int8"]
    assert seven.quantization is not None
    eight = dataclasses.replace(
        seven, quantization=dataclasses.replace(seven.quantization, weight_bits=8)
    )
    for name in ("ort-cpu", "openvino"):
        monkeypatch.setattr(base, "adds_in_32_bits", lambda: False)
        with pytest.raises(RuntimeUnavailable, match=f"{name}: this CPU has no VNNI"):
            load_runtime(name, eight)
        load_runtime(name, seven, threads=1).close()
        monkeypatch.setattr(base, "adds_in_32_bits", lambda: True)
        load_runtime(name, eight, threads=1).close()


def lack(name: str) -> str | None:
    """Returns why this machine cannot run a runtime."""
    try:
        require_runtime(name)
    except RuntimeUnavailable as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", list(RUNTIMES))
def test_what_a_machine_lacks_is_known_without_an_artifact(
    artifacts: dict[str, Artifact], in_trained: Path, name: str
) -> None:
    taken = [each for each in artifacts.values() if each.format in RUNTIMES[name].formats]
    artifact = next((each for each in taken if each.precision in RUNTIMES[name].precisions), None)
    if (reason := lack(name)) is None:
        if artifact is None:
            pytest.skip(f"no default artifact is for {name}")
        load_runtime(name, artifact, threads=1).close()
        return
    assert reason.startswith(f"{name}: ")
    if artifact is not None:
        with pytest.raises(RuntimeUnavailable) as refused:
            load_runtime(name, artifact)
        assert str(refused.value) == reason


def test_a_library_that_cannot_be_imported_is_told_with_its_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = dataclasses.replace(RUNTIMES["ort-cpu"], name="broken", loader="no_such_library:load")
    monkeypatch.setitem(RUNTIMES, "broken", broken)
    with pytest.raises(RuntimeUnavailable, match=r"^broken: .*no_such_library.*; pip install"):
        require_runtime("broken")
