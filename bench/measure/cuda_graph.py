"""Captures work on a GPU as a CUDA graph and times its replay by CUDA events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from core.errors import UserError
from export.torch_cuda import CapturedWork, only_fp32

_MS = 1e-3  # torch's events return milliseconds
_AGREEMENT = 1e-3  # largest difference, relative to the largest value


def load_bare(network: torch.nn.Module, graph: bytes, inputs: Any, threads: int) -> Replay:
    """Returns a replay of a network on the GPU, timed by CUDA events; see :class:`RuntimeSpec`.

    Without a CUDA graph, the time of small layers would be that of launching their kernels.
    """
    only_fp32()
    network.cuda().to(memory_format=torch.channels_last)
    images = torch.from_numpy(inputs).cuda().to(memory_format=torch.channels_last)
    return Replay(lambda: network(images))


class Replay:
    """A CUDA graph of ``work`` on the current GPU; also a :class:`bench.measure.timing.Timed`.

    Args:
        work: launches kernels on the current stream and returns a tensor on the GPU.

    Raises:
        UserError: the graph's output differs from that of ``work``.
    """

    def __init__(self, work: Callable[[], torch.Tensor]) -> None:
        self._answer = torch.empty(0)

        @torch.inference_mode()
        def run() -> None:
            self._answer = work()

        run()
        expected = self._answer.clone()
        self._graph = CapturedWork(run)
        self._start, self._stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        scale = float(expected.abs().max()) or 1.0
        error = float((self() - expected).abs().max()) / scale
        if not error < _AGREEMENT:  # also true for NaN
            raise UserError(
                f"as a CUDA graph it computes something else (relative error {error:.1e}, allowed "
                f"{_AGREEMENT:g}); it is not timed"
            )

    def __call__(self) -> torch.Tensor:
        """Replays once and returns the output on the GPU; the next replay overwrites it."""
        self._graph.replay()
        torch.cuda.synchronize()
        return self._answer

    def elapse(self) -> float:
        """Replays once to its end and returns the seconds between CUDA events around it."""
        self._start.record()
        self._graph.replay()
        self._stop.record()
        self._stop.synchronize()
        return float(self._start.elapsed_time(self._stop)) * _MS
