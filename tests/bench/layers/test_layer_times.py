from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tiny_artifact import tiny_artifact
from torch import nn

from artifact.artifact import Artifact, write_artifact
from bench.layers.command import Layers
from bench.layers.measure import join, measure_layers
from bench.layers.profiler import Kernel, Overhead, kernels, without_profiler
from bench.layers.record import LayerTimes
from bench.layers.sections import kind_rows, sentence
from bench.measure.timing import Latency
from core.errors import UserError
from core.files import staged
from export.quantization.calibration import measure_ranges
from export.quantization.fp16 import to_fp16
from export.quantization.qdq import prepare, to_int8
from export.to_onnx import to_onnx
from models.classifier import Classifier
from models.cost import layer_costs

SIDE = 32


class Small(nn.Module):
    """A layer of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.Hardswish())
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 16, 1), nn.SiLU())
        self.pointwise = nn.Sequential(nn.Conv2d(16, 32, 1), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = self.stem(images)
        images = images + self.grouped(self.depthwise(images))
        logits: torch.Tensor = self.head(self.pointwise(images * self.gate(images)))
        return logits


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Artifact]:
    """Returns the artifact of a small network in a precision."""
    torch.manual_seed(0)
    fp32 = to_onnx(Classifier(Small()), size=SIDE)
    pixels = np.random.default_rng(0).integers(0, 256, (8, SIDE, SIDE, 3), dtype=np.uint8)
    prepared = prepare(fp32)
    graphs = {
        "fp32": fp32,
        "fp16": to_fp16(fp32),
        "int8": to_int8(prepared, measure_ranges(prepared, pixels)["MinMax"]),
    }
    root = tmp_path_factory.mktemp("small") / "artifacts"

    def make(precision: str) -> Artifact:
        path = root / "small-toy" / f"onnx-{precision}"
        if not path.exists():
            with staged(path) as folder:
                artifact = tiny_artifact(
                    folder, SIDE, model="small", data="toy", precision=precision, batch_range=(1, 8)
                )
                onnx.save(graphs[precision], artifact.model_file)
                write_artifact(artifact, pixels, np.zeros((8, 3), np.float32))
        return Artifact.load(path)

    return make


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_mac_has_its_kernel(small: Callable[[str], Artifact], precision: str) -> None:
    times = measure_layers(small(precision), batch=2, threads=1, runs=5)
    macs = sum(layer.macs for layer in layer_costs(onnx.load(small("fp32").model_file)))
    assert sum(layer.macs for layer in times.layers) == 2 * macs
    kinds = {layer.kind for layer in times.layers if layer.macs}
    assert kinds == {"convolution", "depthwise", "grouped", "pointwise", "linear"}
    assert all(layer.seconds > 0 for layer in times.layers)
    assert times.call.cpu
    for what in ("macs", "bytes", "time"):
        assert sum(getattr(share, what) for share in times.shares()) == pytest.approx(1)
    (stem,) = (layer for layer in times.layers if layer.name == "stem.0")
    sizes = {"fp32": 4, "fp16": 2, "int8": 1}
    values = 2 * (3 * SIDE**2 + 16 * (SIDE // 2) ** 2) + 16 * 27 + 16  # weights once for both
    assert stem.bytes == values * sizes[precision]


def conv_and_relu() -> Any:
    """Returns a graph of two 1x1 convolutions, the first with a Relu."""
    nodes = [
        helper.make_node("Conv", ["x", "a.weight"], ["c"], name="first"),
        helper.make_node("Relu", ["c"], ["r"], name="bound"),
        helper.make_node("Conv", ["r", "b.weight"], ["y"], name="second"),
    ]
    shape = ["batch", 4, 6, 6]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [
            onnx.numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), name)
            for name in ("a.weight", "b.weight")
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def test_a_kernel_has_the_cost_of_what_was_fused_into_it() -> None:
    made = [
        Kernel("ReorderInput", "ReorderInput", 1e-6, 1, 1728, 1728),
        Kernel("r_nchwc", "Conv", 4e-6, 1, 1728, 1728),  # named after what the Relu makes
        Kernel("second_token_7", "Conv", 3e-6, 1, 1728, 1728),
    ]
    added, first, second = join(conv_and_relu(), made, batch=3)
    assert (added.name, added.added, added.kind, added.macs) == ("ReorderInput", True, "data", 0)
    assert (first.name, first.added, first.kind) == ("a", False, "pointwise")
    assert first.macs == second.macs == 3 * 4 * 4 * 36
    assert first.bytes == 4 * (3 * 2 * 144 + 16)
    assert (second.name, second.seconds) == ("b", 3e-6)


def test_layers_that_no_kernel_is_named_after_are_no_zeros() -> None:
    with pytest.raises(UserError, match=r"\bsecond: .*\(1 layer\)"):
        join(conv_and_relu(), [Kernel("first", "Conv", 1e-6, 1, 0, 0)])


def event(index: int, microseconds: int, inputs: int = 1) -> dict[str, Any]:
    """What ONNX Runtime writes of a run of a kernel: shapes of what it reads and writes."""
    args = {
        "op_name": "Conv",
        "node_index": str(index),
        "input_type_shape": [{"float": [1, 2, 3, 3]}] * inputs,
        "output_type_shape": [{"float": [1, 4, 3, 3]}],
        "activation_size": "72",
        "parameter_size": "0",
        "output_size": "144",
    }
    return {"cat": "Node", "name": "same_kernel_time", "dur": microseconds, "args": args}


def test_a_kernel_takes_the_mean_of_the_middle_half_of_runs_that_did_not_wait() -> None:
    events: list[dict[str, Any]] = [{"cat": "Session", "name": "model_run", "dur": 9}]
    for first in (900, 1, 2, 3, 50, 5000):  # the first one is the warm-up, in the last it waited
        events += [event(0, first), event(1, 7)]
    first, second = kernels(events, [1, 2, 3, 4, 5], count=6)  # two nodes of one name
    assert (first.name, first.op) == ("same", "Conv")
    assert first.seconds == pytest.approx(2.5e-6)
    assert second.seconds == pytest.approx(7e-6)
    with pytest.raises(UserError, match=r"\b6 .*same_kernel_time, .*\b7 calls"):
        kernels(events, [1], count=7)


def test_what_the_profiler_takes_is_taken_off() -> None:
    overhead = Overhead(launch=1e-6, profiler=2e-6, per_input=0.5e-6)
    made = [Kernel("a", "Conv", 10e-6, 1, 0, 0), Kernel("b", "Conv", 10e-6, 3, 0, 0)]

    def left(call: float) -> list[float]:
        return [one.seconds for one in without_profiler(made, call, overhead)]

    assert left(15e-6) == pytest.approx([8e-6, 7e-6])
    assert left(14e-6) == pytest.approx([10e-6 - 2.4e-6, 10e-6 - 3.6e-6])  # to add up to a call
    assert left(1e-6) == pytest.approx([7e-6, 5.5e-6])  # by half as much again at most
    short = [Kernel("a", "Conv", 2e-6, 1, 0, 0)]
    (one,) = without_profiler(short, 5e-6, overhead)
    assert one.seconds == overhead.launch  # a kernel is called, whatever it does


def test_the_report_says_where_the_time_goes() -> None:
    made = [
        Kernel(name, op, milliseconds / 1e3, 1, 576, 576)
        for name, op, milliseconds in (
            ("first", "Conv", 3),
            ("bound", "Relu", 5),
            ("second", "Conv", 1),
            ("ReorderOutput", "ReorderOutput", 1),
        )
    ]
    times = LayerTimes(
        model="small",
        data="toy",
        precision="fp32",
        sha256="0" * 64,
        machine="here",
        when="2026-11-22T00:00:00+00:00",
        batch=1,
        threads=1,
        layers=tuple(join(conv_and_relu(), made)),
        call=Latency(turns=((9e-3,),) * 5, warmup=1),
    )
    assert [row[0] for row in kind_rows(times)] == ["element-wise", "pointwise", "data"]
    words = sentence(times)
    assert re.match(r"50\.0 % .*element-wise .*\b0\.0 %", words)
    assert "40.0 % in pointwise (100.0 %)" in words
    assert re.search(r"\b10\.0 %\. ", words)  # kernels that ONNX Runtime added
    assert re.search(r"\b10\.0 ms; .*\b9\.00 ms \(p50 of 5\)", words)


def test_the_command_prints_and_writes(
    small: Callable[[str], Artifact],
    make_artifact: Callable[..., Artifact],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Layers(model="small", artifacts=small("fp32").path.parents[1], out=tmp_path, runs=5)()
    printed = capsys.readouterr().out.splitlines()
    page = tmp_path / "layers-small-toy-onnx-fp32.md"
    assert printed[-1] == str(page)
    assert printed[0] == "Layers of small-toy, onnx-fp32, ort-cpu, batch 1, 1 thread"
    assert "| depthwise | " in page.read_text()
    assert "ONNX Runtime 1." in page.read_text()  # which version, on which machine

    assert page.with_suffix(".png").stat().st_size > 10_000
    with pytest.raises(UserError, match=r"onnx-int8 .*\btiny\b"):
        Layers(model="tiny", format="onnx-int8", artifacts=make_artifact().path.parents[1])()


def test_an_engine_has_no_layers_here(tmp_path: Path) -> None:
    engine = tiny_artifact(
        tmp_path,
        SIDE,
        format="tensorrt_rtx",
        precision="fp16",
        sha256s={"model.engine": "0" * 64},
    )
    with pytest.raises(UserError, match=r"tensorrt_rtx-fp16 .*ONNX"):
        measure_layers(engine, batch=1, threads=1, runs=5)
