"""Work that is replayed as a CUDA graph: on a played one, and, where there is one, on a GPU."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import bench.measure.cuda_graph
from bench.layers.gpu_peaks import gpu_peaks
from bench.measure.cuda_graph import Replay
from bench.measure.timing import Plan, Timed, measure
from bench.studies.variants import Variant, prepare
from core.errors import UserError
from export.torch_cuda import CapturedWork


class PlayedGraph:
    """Runs what was captured when it is replayed; ``wrong`` spoils what it computes."""

    def __init__(self, work: Callable[[], None], wrong: list[torch.Tensor]) -> None:
        self.work, self.wrong, self.count = work, wrong, 0

    def replay(self) -> None:
        self.count += 1
        self.work()
        for tensor in self.wrong:
            tensor.add_(1)


class PlayedEvent:
    def __init__(self, **_: Any) -> None:
        pass

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, other: Any) -> float:
        return 2.5


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> tuple[list[PlayedGraph], list[torch.Tensor]]:
    """Plays CUDA graphs on the CPU; returns those that were captured, and what spoils them."""
    found: list[PlayedGraph] = []
    wrong: list[torch.Tensor] = []

    def captured(work: Callable[[], None]) -> PlayedGraph:
        found.append(PlayedGraph(work, wrong))
        return found[-1]

    monkeypatch.setattr(bench.measure.cuda_graph, "CapturedWork", captured)
    monkeypatch.setattr(torch.cuda, "Event", PlayedEvent)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return found, wrong


def test_a_replay_tells_its_own_time(
    graphs: tuple[list[PlayedGraph], list[torch.Tensor]],
) -> None:
    replay = Replay(lambda: torch.ones(2) * 3)
    assert isinstance(replay, Timed)
    assert replay().tolist() == [3, 3]
    latency = measure({"a": replay}, Plan(count=5, seconds=0, rounds=5))["a"]
    assert set(latency.samples) == {2.5e-3}
    ((graph,), _) = graphs
    assert graph.count >= 7


def test_wrong_answers_are_not_timed(
    graphs: tuple[list[PlayedGraph], list[torch.Tensor]],
) -> None:
    answer = torch.zeros(2)
    graphs[1].append(answer)
    with pytest.raises(UserError, match="as a CUDA graph it computes something else"):
        Replay(lambda: answer.fill_(4))


def test_captured_work_keeps_alive_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Stream", "CUDAGraph", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, nullcontext)
    images = torch.zeros(1)
    seen = weakref.ref(images)
    work = CapturedWork(partial(torch.add, images, 1))
    del images
    assert seen() is not None
    del work
    assert seen() is None


@pytest.mark.gpu
def test_a_study_replays_what_torch_computes() -> None:
    variant = Variant(
        group="g", name="v", build=lambda: nn.Conv2d(8, 8, 3, padding=1), shape=(8, 16, 16)
    )
    candidate = prepare(variant, ["torch", "torch-cuda"], batch=4, threads=1)
    replay = candidate.calls["torch-cuda"]
    assert isinstance(replay, Replay)
    assert 1e-7 < replay.elapse() < 1


@pytest.mark.gpu
def test_a_replay_keeps_what_it_reads() -> None:
    kept = torch.ones(1 << 20).cuda()
    replay = Replay(lambda images=kept: images + 1)
    del kept
    others = [torch.full((1 << 20,), 7.0).cuda() for _ in range(8)]
    assert bool((replay() == 2).all())
    assert len(others) == 8


@pytest.mark.gpu
def test_peaks_are_those_of_a_gpu() -> None:
    peaks = gpu_peaks(1)
    assert peaks.flops["fp16"] > 2 * peaks.flops["fp32"] > 2e11
    rates = [rate for _, rate in peaks.bandwidth]
    assert min(rates) > 1e10
    assert max(rates) < 1e14
    assert 1e-8 < peaks.launch < 1e-4
