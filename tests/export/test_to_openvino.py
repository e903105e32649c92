"""OpenVINO's own files: bfloat16 where the CPU has it, and never unasked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import openvino
import pytest

from artifact.artifact import Artifact
from artifact.gates import DEFAULTS
from artifact.golden import relative_error
from artifact.runtimes.base import RuntimeUnavailable, load_runtime
from artifact.runtimes.openvino_cpu import core
from export.to_openvino import build


@pytest.fixture
def bf16(artifacts: dict[str, Artifact], tmp_path: Path) -> Artifact:
    """Returns the small trained network, to be computed in bfloat16."""
    source = artifacts["onnx-fp32"]
    draft = replace(source, path=tmp_path, format="openvino", precision="bf16")
    return build(draft, source.graph_file.read_bytes(), ())


def test_bfloat16_is_computed_where_the_cpu_has_it(
    bf16: Artifact, artifacts: dict[str, Artifact]
) -> None:
    if "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bfloat16")
    pixels, golden = artifacts["onnx-fp32"].golden()
    with load_runtime("openvino", bf16, threads=1) as runtime:
        logits = runtime(pixels)
        compiled = runtime._batched.compiled  # type: ignore[attr-defined]
        assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.bf16
    assert (logits.argmax(axis=1) == golden.argmax(axis=1)).all()
    assert 1e-4 < relative_error(logits, golden) < DEFAULTS["bf16"].golden_error


def test_another_cpu_refuses_it(bf16: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    class Core:
        def get_property(self, device: str, name: object) -> list[str]:
            return ["FP32", "INT8"]

    monkeypatch.setattr("artifact.runtimes.openvino_cpu.core", Core)
    with pytest.raises(RuntimeUnavailable, match=r"no bf16 arithmetic \(it has FP32, INT8\)"):
        load_runtime("openvino", bf16)
