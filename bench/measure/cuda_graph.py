"""Work on a GPU, captured as a CUDA graph and timed by CUDA events, without launches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from core.errors import UserError
from export.torch_cuda import CapturedWork, only_fp32

_MS = 1e-3  # torch's events answer in milliseconds
_AGREEMENT = 1e-3  # of the largest value


def load_bare(network: torch.nn.Module, graph: bytes, inputs: Any, threads: int) -> Replay:
    """Returns a replay of a network on the GPU, timed by CUDA events; see :class:`RuntimeSpec`.

    Launched kernel by kernel, small layers would take what the processor takes to launch them.
    """
    only_fp32()
    network.cuda().to(memory_format=torch.channels_last)
    images = torch.from_numpy(inputs).cuda().to(memory_format=torch.channels_last)
    return Replay(lambda: network(images))


class Replay:
    """What replays ``work`` on the current GPU; calling it returns what the work returned.

    A :class:`bench.measure.timing.Timed` one, too.

    Args:
        work: puts kernels on the current stream, and returns a tensor on the GPU.

    Raises:
        UserError: replayed, it computes something else than launched kernel by kernel.
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
        if not error < _AGREEMENT:  # nor NaN
            raise UserError(
                f"as a CUDA graph it computes something else (relative error {error:.1e}, allowed "
                f"{_AGREEMENT:g}); it is not timed"
            )

    def __call__(self) -> torch.Tensor:
        """Returns the answer of one more run, on the GPU; it is overwritten by the next one."""
        self._graph.replay()
        torch.cuda.synchronize()
        return self._answer

    def elapse(self) -> float:
        """Returns the seconds between two CUDA events around one replay, after it has ended."""
        self._start.record()
        self._graph.replay()
        self._stop.record()
        self._stop.synchronize()
        return float(self._start.elapsed_time(self._stop)) * _MS
