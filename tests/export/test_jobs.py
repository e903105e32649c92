from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
from fake_jobs import broken, cores, killed, slow
from quick_start import forking

from core.errors import UserError
from export import jobs
from export.build import Options
from export.jobs import Job, run_jobs
from export.network import WeightsChoice

TARGETS = ("onnx-fp32", "onnx-fp16")


def job(model: str, data: str | None = "digits", weights: WeightsChoice = "auto") -> Job:
    return Job(model=model, data=data, weights=weights, targets=TARGETS, options=Options())


def test_a_network_that_fails_is_a_row_and_stops_no_other(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = ("torch", "torchvision", "onnx", "onnxscript", "sklearn.datasets")
    monkeypatch.setattr(jobs, "get_context", forking(modules))
    wanted = [job("mobilenet_v2"), job("resnet14", None, "random")]
    found = {done.model: outcomes for done, outcomes in run_jobs(wanted, workers=2)}
    (missing,) = found["mobilenet_v2"]
    assert missing.failed
    assert str(missing.reason).startswith("no run of mobilenet_v2 on digits")
    assert [outcome.target for outcome in found["resnet14"]] == list(TARGETS)
    assert not any(outcome.failed for outcome in found["resnet14"])


@pytest.mark.parametrize(
    ("run", "reason"),
    [(killed, "its process was killed"), (broken, "ValueError: not foreseen")],
)
def test_whatever_happens_to_a_process_is_a_row(
    monkeypatch: pytest.MonkeyPatch, run: object, reason: str
) -> None:
    monkeypatch.setattr(jobs, "_run", run)
    ((done, (outcome,)),) = run_jobs([job("resnet50")], workers=1)
    assert done.model == "resnet50"
    assert outcome.failed
    assert str(outcome.reason).startswith(reason)
    assert "\n" not in str(outcome.reason)


def test_every_worker_has_cores_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_run", cores)
    every = sorted(os.sched_getaffinity(0))
    found = list(run_jobs([job("a"), job("b"), job("c")], workers=len(every)))
    assert {outcome.target for _, (outcome,) in found} <= {str([core]) for core in every}


def test_who_stops_waits_for_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_run", slow)
    running = run_jobs([job("first"), job("second"), job("third")], workers=1)
    assert next(running)[0].model == "first"
    running.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


def test_no_worker_at_all() -> None:
    with pytest.raises(UserError, match="workers is 0: it must be at least 1"):
        list(run_jobs([job("resnet50")], workers=0))
