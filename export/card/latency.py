"""A first figure of an artifact's latency, for its model card; ``bench`` measures better."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from artifact.artifact import Artifact
from artifact.runtimes.base import RUNTIMES, load_runtime
from core.machine import cpu_name

_SECONDS, _MOST, _LEAST, _WARMUP = 0.2, 100, 5, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class QuickLatency:
    """Latency of one image per call, in one thread, measured call after call.

    Attributes:
        runtime: name of the runtime.
        calls: number of timed calls.
        p50_s: median in seconds.
        p95_s: 95th percentile.
        machine: name of the processor.
        library: package that computed, with its version.
    """

    runtime: str
    calls: int
    p50_s: float
    p95_s: float
    machine: str
    library: str


def quick_latency(artifact: Artifact) -> QuickLatency:
    """Returns the latency of ``artifact`` here, in the runtime that verified it.

    Raises:
        RuntimeUnavailable: this machine cannot run it.
    """
    spec = RUNTIMES.find(artifact.spec.proving_runtime)
    pixels = artifact.golden()[0][:1]
    samples: list[float] = []
    with load_runtime(spec.name, artifact, threads=1) as runtime:
        for _ in range(_WARMUP):
            runtime(pixels)
        while len(samples) < _LEAST or (sum(samples) < _SECONDS and len(samples) < _MOST):
            start = time.perf_counter()
            runtime(pixels)
            samples.append(time.perf_counter() - start)
    p50, p95 = np.quantile(samples, (0.5, 0.95))
    return QuickLatency(
        runtime=spec.name,
        calls=len(samples),
        p50_s=float(p50),
        p95_s=float(p95),
        machine=cpu_name(),
        library=_library(spec.packages),
    )


def _library(packages: tuple[str, ...]) -> str:
    for package in packages:
        with suppress(PackageNotFoundError):
            return f"{package} {version(package)}"
    return packages[0]
