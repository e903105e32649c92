"""An ONNX graph of somebody else's, down the road: exported, measured, picked and served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import bench.latency.measure
from artifact.artifact import Artifact
from artifact.store import read_pick
from bench.latency.command import Run
from bench.latency.record import read_sweep

SIDE, LABELS = 16, ("red", "green", "blue")
FLAGS = "--resize 16 --interpolation bilinear --mean 0.5 --std 0.5 --labels labels.txt"


def save(path: str) -> None:
    """Saves a graph whose logits are ten times how red, green and blue an image is."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["scaled"]),
        helper.make_node("GlobalAveragePool", ["scaled"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["y"]),
    ]
    weights = 10 * np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def test_it_is_measured_picked_and_served(
    here: Path,
    command: Callable[..., Any],
    encoded: Callable[..., bytes],
    serve: Callable[..., Any],
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save("net.onnx")
    Path("labels.txt").write_text("\n".join(LABELS))
    ended = command(
        "export", "run", "--model", "own", "--onnx", "net.onnx", *FLAGS.split(),
        "--formats", "onnx-fp32", "onnx-int8",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr + ended.stdout
    monkeypatch.setattr(bench.latency.measure, "list_runtimes", lambda *_: ["ort-cpu", "torch"])
    Run(artifacts=Path("artifacts"), out=Path("reports"), count=5, seconds=0, rounds=5)()
    rows = read_sweep(Path("reports")).rows
    reasons = {row.runtime: row.reason for row in rows}
    assert reasons["ort-cpu"] is None
    assert "which torch does not run" in str(reasons["torch"])
    choice = read_pick(Path("artifacts/own-net"))
    assert choice is not None
    folder = here / "artifacts" / "own-net"
    root = str(Path(bench.__file__ or bench.__path__[0]).parents[1])
    environment["PYTHONPATH"] = root
    with serve(
        "-m", "serving", "--artifact", str(folder), cwd=here, environment=environment
    ) as server:
        answers = {
            colour: httpx.post(f"{server.url}/predict", content=encoded(colour)).json()
            for colour in LABELS
        }
    artifact = Artifact.load(folder / choice.artifact)
    assert artifact.labels == LABELS
    for colour, answer in answers.items():
        assert answer["predictions"][0]["label"] == colour
        assert answer["runtime"] == choice.runtime == "ort-cpu"
