"""Prometheus metrics: requests, stages, batches, queue.

With several workers each writes its metrics to files in a shared folder (prometheus_client's
multiprocess mode), and any of them can report those of all.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from starlette.responses import Response

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
QUEUE_DEPTH = "pocketnets_queue_depth"
OTHER = "other"  # label of unknown paths, of which clients could send any number

# Buckets: stages take 0.1 ms to seconds; a request to a small network takes 2 ms.
_SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)

REQUESTS = Counter("pocketnets_requests", "Requests by path and HTTP status", ["path", "status"])
STAGES = Histogram(
    "pocketnets_stage_seconds",
    "Time of an image in a stage: decode, resize, queue, inference",
    ["stage"],
    buckets=_SECONDS,
)
BATCHES = Histogram(
    "pocketnets_batch_size", "Images in one call", buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
DEPTH = Gauge(QUEUE_DEPTH, "Images that wait", multiprocess_mode="livesum")


_requests = functools.cache(lambda path, status: REQUESTS.labels(path, str(status)))


def count(path: str, status: int) -> None:
    """Counts one response."""
    _requests(path, status).inc()


def exposition() -> Response:
    """Returns all metrics in Prometheus' text format, summed over all workers."""
    registry = REGISTRY
    if folder := os.environ.get(FOLDER):
        for pid in _dead(Path(folder)):
            mark_process_dead(pid, folder)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, folder)
    return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})


def _dead(folder: Path) -> set[int]:
    """Returns the process IDs of ended workers that left a gauge file."""
    pids = {int(path.stem.rpartition("_")[2]) for path in folder.glob("gauge_live*.db")}
    return {pid for pid in pids if not Path(f"/proc/{pid}").exists()}
