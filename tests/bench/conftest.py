from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tiny_artifact import colour_means, tiny_artifact

from bench.conditions import Conditions
from bench.rows import Row, Sweep
from bench.timing import Latency, Plan
from export.artifact import Artifact, write_artifact
from export.records import Metrics
from models.files import staged
from models.machine import Machine

SIDE = 32
PLAN = Plan(count=35, seconds=0, rounds=7)  # what the rows of make_row hold


@pytest.fixture
def make_artifact(tmp_path: Path) -> Callable[..., Artifact]:
    """Makes artifacts under ``tmp_path / "artifacts"``; keywords replace fields."""

    def make(network: str = "tiny-toy", name: str = "onnx-fp32", **changes: Any) -> Artifact:
        model, _, data = network.rpartition("-")
        form, _, precision = name.rpartition("-")
        path = tmp_path / "artifacts" / network / name
        pixels = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
        logits = pixels.mean(axis=(1, 2)).astype(np.float32)
        with staged(path) as folder:
            artifact = tiny_artifact(
                folder,
                SIDE,
                model=model,
                data=data,
                precision=precision,
                format=form,
                batch_range=(1, 8),
                macs=3072,
                metrics=Metrics(top1=0.75, torch_top1=0.75, images=20, runtime="ort-cpu"),
            )
            artifact = dataclasses.replace(artifact, **changes)
            onnx.save(colour_means(SIDE), str(artifact.model_file))
            write_artifact(artifact, pixels, logits)
        return Artifact.load(path)

    return make


MACHINE = Machine(
    cpu="a processor",
    cores=2,
    memory=None,
    os="a system",
    kernel="1.0",
    governor=None,
    gpu=None,
    driver=None,
    versions={"python": "3.11"},
)
BEFORE = Conditions(
    when="2026-11-22T00:00:00+00:00", load_average=(0.1, 0.2, 0.3), cpu_mhz=2000.0, gpu_mhz=None
)
AFTER = dataclasses.replace(BEFORE, when="2026-11-22T00:10:00+00:00", load_average=(1.0, 0.5, 0.3))


@pytest.fixture(scope="session")
def make_row() -> Callable[..., Row]:
    """Makes rows; ``ms`` is the duration of every sample, ``spread`` how far turns differ."""

    def make(ms: float | None = 1.0, spread: float = 0.0, **changes: Any) -> Row:
        latency = None
        if ms is not None:
            factors = np.linspace(1 - spread, 1 + spread, 7)
            turns = tuple((ms / 1e3 * float(f),) * 5 for f in factors)
            latency = Latency(turns=turns, warmup=10)
        fields: dict[str, Any] = {
            "model": "tiny",
            "data": "toy",
            "folder": f"tiny-toy/onnx-{changes.get('precision', 'fp32')}",
            "format": "onnx",
            "precision": "fp32",
            "runtime": "ort-cpu",
            "batch": 1,
            "threads": 1,
            "latency": latency,
            "weights": "trained",
            "macs": 17_800_000,
            "parameters": 4_200_000,
            "size": 21_900_000,
            "sha256": "0" * 64,
            "metrics": Metrics(top1=0.983, torch_top1=0.983, images=359, runtime="ort-cpu"),
            "machine": MACHINE.key,
            "when": "2026-11-22T00:00:00+00:00",
        }
        return Row(**{**fields, **changes})

    return make


@pytest.fixture(scope="session")
def make_sweep() -> Callable[..., Sweep]:
    """Makes a sweep of rows, on a made-up machine."""

    def make(*rows: Row) -> Sweep:
        return Sweep(machine=MACHINE, plan=PLAN, rows=rows, before=BEFORE, after=AFTER)

    return make
