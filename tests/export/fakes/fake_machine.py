"""A machine with a GPU and a TensorRT that are not there, and an engine of a tiny network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fake_cuda import FakeCuda, FakeDriver
from onnx import TensorProto, helper

from export.artifact import Artifact, write_artifact
from export.flavour import FlavourName
from export.records import Limits, Parity, Source, TensorSpec
from export.to_tensorrt import build_engine
from models.preprocess import Preprocess

SIDE = 4


@dataclass(frozen=True, slots=True)
class Machine:
    """``artifact`` holds an engine that fits; ``trt``, ``cuda`` and ``driver`` are the fakes."""

    artifact: Artifact
    trt: Any
    cuda: FakeCuda
    driver: FakeDriver

    @property
    def runtime(self) -> str:
        return self.artifact.format.replace("_", "-")


def graph() -> bytes:
    """A network of three classes: the mean of each colour channel."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["logits"], keepdims=0),
    ]
    ends = (
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
    )
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    made = helper.make_graph(nodes, "means", *ends, [axes])
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(made, opset_imports=opset, ir_version=10)
    return bytes(model.SerializeToString())


def images(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def engine_artifact(path: Path, flavour: FlavourName) -> Artifact:
    """Returns an artifact of ``graph()``, with profiles of their own for 1 and 8 images."""
    path.mkdir()
    engine, fingerprint = build_engine(graph(), flavour, batch_range=(1, 32), batches=(8, 1, 8))
    (path / "model.onnx").write_bytes(graph())
    (path / "model.engine").write_bytes(engine)
    pixels = images(3)
    artifact = Artifact(
        path=path,
        model="mobilenet_v3_large",
        data="digits",
        weights="trained",
        precision="fp16",
        format=flavour,
        labels=("red", "green", "blue"),
        preprocess=Preprocess(resize=SIDE, crop=SIDE),
        input=TensorSpec(name="pixels", dtype="uint8", shape=("batch", SIDE, SIDE, 3)),
        output=TensorSpec(name="logits", dtype="float32", shape=("batch", 3)),
        batch_range=(1, 32),
        macs=0,
        parameters=0,
        limits=Limits(top1_agreement=None, top1_drop=None, golden_error=1.0),
        parity=Parity(
            runtime=flavour,
            reference="torch",
            images=3,
            batches=(1,),
            finite=True,
            top1_agreement=1.0,
            relative_error=0.0,
            batch_error=0.0,
            golden_error=0.0,
        ),
        metrics=None,
        unverified=None,
        source=Source(origin="trained on digits", data="digits"),
        fingerprint=fingerprint,
        versions={},
        sha256s={},
    )
    return write_artifact(artifact, pixels, pixels.mean(axis=(1, 2), dtype=np.float32))
