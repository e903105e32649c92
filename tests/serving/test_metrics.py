from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from serving.metrics import BATCHES, DEPTH, QUEUE_DEPTH, REQUESTS, STAGES, exposition

ROOT = Path(__file__).resolve().parents[2]


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_what_happened_is_told() -> None:
    model = {"model": "a", "version": "1"}
    labels = {"path": "/predict", "status": "200", **model}
    requests, batches = (
        value("pocketnets_requests_total", **labels),
        value("pocketnets_batch_size_sum", **model),
    )
    fast = value("pocketnets_stage_seconds_bucket", stage="decode", le="0.0005", **model)
    REQUESTS.labels("/predict", "200", "a", "1").inc()
    BATCHES.labels("a", "1").observe(4)
    STAGES.labels("decode", "a", "1").observe(0.0004)
    DEPTH.labels("a", "1").set(7)
    families = text_string_to_metric_families(bytes(exposition().body).decode())
    told = {(s.name, *sorted(s.labels.items())): s.value for f in families for s in f.samples}
    assert told["pocketnets_requests_total", *sorted(labels.items())] == requests + 1
    of_model = sorted(model.items())
    assert told["pocketnets_batch_size_sum", *of_model] == batches + 4
    bucket = sorted({"le": "0.0005", "stage": "decode", **model}.items())
    assert told["pocketnets_stage_seconds_bucket", *bucket] == fast + 1  # below a millisecond, too
    assert told[QUEUE_DEPTH, *of_model] == 7
    DEPTH.labels("a", "1").set(0)


def test_workers_are_told_of_together_and_the_dead_wait_for_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, time, serving.metrics as m\n"
        "m.REQUESTS.labels('/predict', '200', 'a', '1').inc()\n"
        "m.DEPTH.labels('a', '1').set(5)\n"
        "print('set', flush=True)\n"
        "sys.stdin.read() if sys.argv[1:] else None\n"
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    options = {"cwd": ROOT, "env": environment, "text": True}
    subprocess.run([sys.executable, "-c", code], check=True, **options)  # type: ignore[call-overload]
    with subprocess.Popen(  # type: ignore[call-overload]
        [sys.executable, "-c", code, "wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        **options,
    ) as alive:
        assert alive.stdout.readline() == "set\n"
        asked = subprocess.run(  # type: ignore[call-overload]
            [
                sys.executable,
                "-c",
                "import serving.metrics as m; print(bytes(m.exposition().body).decode())",
            ],
            capture_output=True,
            check=True,
            **options,
        ).stdout
        assert psutil.Process(alive.pid).is_running()
        alive.communicate("")
    lines = asked.splitlines()
    asked = 'pocketnets_requests_total{model="a",path="/predict",status="200",version="1"} 2.0'
    assert asked in lines
    assert f'{QUEUE_DEPTH}{{model="a",version="1"}} 5.0' in lines  # of the one that lives
