"""Measures the peaks of a GPU in torch: products of matrices, and copies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from artifact.records import Precision
from artifact.runtimes.gpu import require_gpu
from bench.experiment import this_machine
from bench.layers.peaks import Peaks
from bench.measure.cuda_graph import Replay
from core.conditions import conditions
from export.torch_cuda import only_fp32

RUNTIME = "torch-cuda"
# Matrix products (rows, depth, columns): which shape is fastest differs from GPU to GPU.
_PRODUCTS = ((4096, 4096, 4096), (8192, 4096, 8192), (8192, 8192, 8192), (16384, 2048, 8192))
_TYPES: dict[Precision, torch.dtype] = {"fp16": torch.float16, "fp32": torch.float32}
# Working sets in bytes, source and copy together: from what a cache holds to far beyond it.
_SETS = tuple(1 << power for power in range(22, 32))
_LEAST_MOVED = 1 << 30  # bytes of one timed replay, so that its launch does not count
_KERNELS = 200  # of one timed replay, to see what one takes at least
_TIMES = 8


def gpu_peaks(threads: int) -> Peaks:
    """Returns the peaks of the first GPU, the best of several shapes and repetitions, in seconds.

    Tensor cores multiply fp16; fp32 is without TF32. Bytes count when they are read and when they
    are written.

    Raises:
        RuntimeUnavailable: there is no GPU.
    """
    require_gpu(RUNTIME)
    only_fp32()
    return Peaks(
        machine=this_machine().key,
        runtime=RUNTIME,
        threads=threads,
        flops={
            precision: max(_flops(dtype, *shape) for shape in _PRODUCTS)
            for precision, dtype in _TYPES.items()
        },
        bandwidth=tuple((size, _bandwidth(size)) for size in _SETS if _fits(size)),
        launch=_launch(),
        when=conditions().when,
    )


def _flops(dtype: torch.dtype, rows: int, depth: int, columns: int) -> float:
    """Returns the operations per second of a product of random matrices."""
    left = torch.randn(rows, depth, device="cuda", dtype=dtype)
    # Columns in memory one after the other, as weights of a linear layer are.
    right = torch.randn(columns, depth, device="cuda", dtype=dtype).T
    product = torch.empty(rows, columns, device="cuda", dtype=dtype)
    seconds = _seconds(lambda: torch.mm(left, right, out=product))
    return 2 * rows * depth * columns / seconds


def _bandwidth(size: int) -> float:
    """Returns the bytes per second of moving one half of ``size`` bytes to the other.

    The best of a copy and of a kernel that multiplies by one: which is faster differs.
    """
    source, target = torch.ones(2, size // 8, device="cuda").unbind()
    count = max(1, _LEAST_MOVED // size)

    def repeated(move: Callable[[], object]) -> torch.Tensor:
        for _ in range(count):
            move()
        return target

    moves: tuple[Callable[[], object], ...] = (
        lambda: target.copy_(source),
        lambda: torch.mul(source, 1.0, out=target),
    )
    return size * count / min(_seconds(partial(repeated, move)) for move in moves)


def _launch() -> float:
    """Returns the seconds that a kernel takes at least inside a CUDA graph."""
    number = torch.zeros(1, device="cuda")

    def count() -> torch.Tensor:
        for _ in range(_KERNELS):
            number.mul_(1.0)
        return number

    return _seconds(count) / _KERNELS


def _fits(size: int) -> bool:
    free, _ = torch.cuda.mem_get_info()
    return size < free // 2


def _seconds(work: Callable[[], torch.Tensor]) -> float:
    """Returns the least seconds of several replays of ``work``, after as many untimed ones."""
    elapse: Callable[[], float] = partial(Replay.elapse, Replay(work))
    for _ in range(_TIMES):
        elapse()
    return min(elapse() for _ in range(_TIMES))
