"""Measures the peak rates of a GPU in torch: matrix products and copies."""

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
# Matrix products (rows, depth, columns); which shape is fastest depends on the GPU.
_PRODUCTS = ((4096, 4096, 4096), (8192, 4096, 8192), (8192, 8192, 8192), (16384, 2048, 8192))
_TYPES: dict[Precision, torch.dtype] = {"fp16": torch.float16, "fp32": torch.float32}
# Working sets in bytes, source and copy together, from cache size to far beyond.
_SETS = tuple(1 << power for power in range(22, 32))
_LEAST_MOVED = 1 << 30  # bytes per timed replay, so that launch overhead is negligible
_KERNELS = 200  # kernels per timed replay, to measure the launch overhead
_TIMES = 8


def gpu_peaks(threads: int) -> Peaks:
    """Measures the peaks of the first GPU, the best of several shapes and repetitions.

    It takes seconds. fp16 uses tensor cores, fp32 is without TF32. A copied byte counts twice, as
    it is read and written.

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
    """Returns the operations per second of multiplying random matrices."""
    left = torch.randn(rows, depth, device="cuda", dtype=dtype)
    # Column-major, like the weights of a linear layer.
    right = torch.randn(columns, depth, device="cuda", dtype=dtype).T
    product = torch.empty(rows, columns, device="cuda", dtype=dtype)
    seconds = _seconds(lambda: torch.mm(left, right, out=product))
    return 2 * rows * depth * columns / seconds


def _bandwidth(size: int) -> float:
    """Returns the bytes per second, read and written, in a working set of ``size`` bytes.

    The better of a copy and a multiplication by one, as either may be faster.
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
    """Returns the seconds of a trivial kernel inside a CUDA graph."""
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
    """Returns the minimum time of several replays of ``work``, after as many untimed ones."""
    elapse: Callable[[], float] = partial(Replay.elapse, Replay(work))
    for _ in range(_TIMES):
        elapse()
    return min(elapse() for _ in range(_TIMES))
