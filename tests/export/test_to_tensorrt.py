"""The builder of both flavours: the native one on fakes, RTX for real as well."""

from __future__ import annotations

import hashlib
import sys

import onnx
import pytest
from fake_machine import Machine, graph
from fake_tensorrt import fake_trt

from artifact.runtimes.base import RuntimeUnavailable
from artifact.runtimes.tensorrt_builder import build_engine, rebuild_engine
from core.errors import UserError


def test_the_fingerprint_says_what_an_engine_is_tied_to(machine: Machine) -> None:
    made = machine.artifact.fingerprint
    assert made.version == machine.trt.__version__
    assert made.capabilities == (("8.6", "12.0") if machine.runtime == "tensorrt-rtx" else ("8.6",))
    assert made.driver == "13.0"
    assert made.onnx_sha256 == hashlib.sha256(graph()).hexdigest()
    assert made.profiles == ((1, 5, 32), (1, 1, 1), (8, 8, 8))


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("Builder.__init__", "cannot start a builder"),
        ("Builder.create_network", "cannot start a network"),
        ("OnnxParser.__init__", "cannot start a parser"),
        ("OnnxParser.parse", "cannot parse the graph"),
        ("Builder.create_builder_config", "cannot start a configuration"),
        ("IBuilderConfig.add_optimization_profile", "refuses the batch sizes 1 to 32"),
        ("Builder.build_serialized_network", "cannot build an engine"),
        ("RtxBuilderConfig.set_compute_capability", r"does not build for 8\.6, 12\.0"),
    ],
)
def test_building_fails_with_the_words_of_tensorrt(
    machine: Machine, call: str, reason: str
) -> None:
    if call.startswith("Rtx") and machine.runtime == "tensorrt":
        pytest.skip("TensorRT builds for its own GPU only")
    machine.trt.failing.add(call)
    with pytest.raises(UserError, match=f"^{machine.artifact.format} {reason}: {call} failed$"):
        rebuild_engine(machine.artifact)


@pytest.mark.usefixtures("no_driver")
def test_tensorrt_is_not_built_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    trt = fake_trt("tensorrt", "11.4.0.106")
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    with pytest.raises(RuntimeUnavailable, match="tensorrt: no NVIDIA driver on this machine"):
        build_engine(graph(), "tensorrt", batch_range=(1, 2))
    assert trt.calls == []


@pytest.mark.usefixtures("no_driver")
def test_rtx_builds_real_engines_without_a_gpu() -> None:
    trt = pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    engine, fingerprint = build_engine(
        graph(), "tensorrt_rtx", batch_range=(1, 16), batches=(8, 1, 8)
    )
    assert len(engine) > 1000
    assert fingerprint.version == trt.__version__
    assert fingerprint.driver is None
    known = [int(member) for member in trt.ComputeCapability.__members__.values()]
    assert {"7.5", "8.6", "12.0"} <= set(fingerprint.capabilities)
    assert fingerprint.capabilities == tuple(f"{sm // 10}.{sm % 10}" for sm in known if sm > 1)
    assert fingerprint.profiles == ((1, 4, 16), (1, 1, 1), (8, 8, 8))


@pytest.mark.usefixtures("no_driver")
def test_rtx_says_why_it_refuses_a_graph() -> None:
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    model = onnx.load_from_string(graph())
    model.graph.node[0].op_type = "Unheard"
    with pytest.raises(UserError, match=r"^tensorrt_rtx cannot parse the graph: ") as error:
        build_engine(model.SerializeToString(), "tensorrt_rtx", batch_range=(1, 2))
    assert "Unheard" in str(error.value)
    assert "\n" not in str(error.value)
