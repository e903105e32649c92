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

_MODEL = ["model", "version"]  # empty for requests that no model answers
REQUESTS = Counter(
    "pocketnets_requests", "Requests by path, HTTP status and model", ["path", "status", *_MODEL]
)
STAGES = Histogram(
    "pocketnets_stage_seconds",
    "Time of an image in a stage: decode, resize, queue, inference",
    ["stage", *_MODEL],
    buckets=_SECONDS,
)
BATCHES = Histogram(
    "pocketnets_batch_size", "Images in one call", _MODEL, buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
DEPTH = Gauge(QUEUE_DEPTH, "Images that wait", _MODEL, multiprocess_mode="livesum")
MODEL_BYTES = Gauge(
    "pocketnets_model_memory_bytes", "Memory of a model", _MODEL, multiprocess_mode="livesum"
)
LOGGED = Counter(
    "pocketnets_prediction_log_rows", "Rows of the prediction log: written, or lost", ["outcome"]
)
DRIFT = Gauge(
    "pocketnets_drift_psi",
    "Population stability index of the last 1,000 logged answers of a process; the largest",
    [*_MODEL, "feature"],
    multiprocess_mode="livemax",
)

MIRRORED = Counter(
    "pocketnets_shadow_images",
    "Images that the shadow was asked, by whether its likeliest label agrees with the answer's",
    [*_MODEL, "shadow", "shadow_version", "outcome"],
)

_NONE = ("", "")
_requests = functools.cache(lambda path, status, model: REQUESTS.labels(path, str(status), *model))


def count(path: str, status: int, model: tuple[str, str] = _NONE) -> None:
    """Counts one response; ``model`` is the name and version of the model that answered."""
    _requests(path, status, model).inc()


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
