"""The torch network on an NVIDIA GPU: the baseline of all runtimes there."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from artifact.artifact import Artifact
from artifact.records import Logits
from artifact.runtimes.base import RUNTIMES, RuntimeUnavailable, check_pixels
from artifact.runtimes.cuda import Cuda
from artifact.runtimes.gpu import require_gpu
from artifact.runtimes.resident import GpuRuntime, Resident
from core.preprocess import Pixels
from export.torch_eager import source_network

EAGER, COMPILED = "torch-cuda", "torch-cuda-compile"
_WARM = 3  # runs before a capture, in which cuDNN chooses kernels and allocates memory


class TorchCudaRuntime(GpuRuntime):
    """A torch module on the GPU, channels last; all its work is on the default stream."""

    parallel = False  # a compiled network replays one graph into one buffer

    def __init__(self, name: str, artifact: Artifact, network: Callable[[Any], Any]) -> None:
        self.name = name
        self._artifact = artifact
        self._network: Callable[[Any], Any] | None = network

    @torch.inference_mode()
    def __call__(self, pixels: Pixels) -> Logits:
        """Returns float32 logits (N, C) of uint8 pixels (N, H, W, 3)."""
        assert self._network is not None, "called after the runtime was closed"
        check_pixels(pixels, self._artifact)
        logits: Logits = self._network(torch.from_numpy(pixels).cuda()).cpu().numpy()
        return logits

    def resident(self, pixels: Pixels, *, graph: bool = False) -> Resident:
        """Copies uint8 ``pixels`` (N, H, W, 3) to the GPU, ready for inference there.

        Raises:
            RuntimeUnavailable: CUDA fails, or ``graph`` is set for a compiled network, which
                already replays a CUDA graph.
        """
        assert self._network is not None, "called after the runtime was closed"
        check_pixels(pixels, self._artifact)
        if graph and self.name == COMPILED:
            raise RuntimeUnavailable(f"{COMPILED}: replays CUDA graphs anyway (reduce-overhead)")
        cuda, network = Cuda(self.name), self._network
        images = torch.from_numpy(pixels).cuda()
        answer = torch.empty(0)

        @torch.inference_mode()
        def infer() -> None:
            nonlocal answer
            answer = network(images)

        launch = CapturedWork(infer).replay if graph else infer
        stream = torch.cuda.current_stream().cuda_stream
        shape = (len(pixels), len(self._artifact.labels))
        return Resident(cuda, stream, launch, shape, lambda: answer.data_ptr(), ExitStack())

    def close(self) -> None:
        """Frees the runtime's resources; it must not be called afterwards."""
        self._network = None


def load(artifact: Artifact, *, threads: int | None = None) -> TorchCudaRuntime:
    """Loads the network that ``artifact`` was made from, in the precision of its graph.

    ``threads`` has no effect.

    Raises:
        RuntimeUnavailable: no GPU, a torch without CUDA, missing weights, or an int8 artifact.
    """
    return TorchCudaRuntime(EAGER, artifact, _network(EAGER, artifact))


def load_compiled(artifact: Artifact, *, threads: int | None = None) -> TorchCudaRuntime:
    """Loads as :func:`load` and compiles with ``torch.compile``, using CUDA graphs.

    The first call at each batch size compiles for up to a minute.

    Raises:
        RuntimeUnavailable: as :func:`load` does.
    """
    network = torch.compile(_network(COMPILED, artifact), dynamic=False, mode="reduce-overhead")
    return TorchCudaRuntime(COMPILED, artifact, network)


class CapturedWork:
    """Work on the GPU as a CUDA graph.

    A graph reads and writes memory by its address; this keeps alive what ``work`` refers to, so
    that nothing else gets that memory.

    Args:
        work: puts kernels on the current stream; captured, it was not run.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(_WARM):
                work()
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            work()

    def replay(self) -> None:
        """Launches all of the work on the current stream."""
        self._graph.replay()


def require(name: str) -> None:
    """Raises RuntimeUnavailable if there is no GPU, or a torch without CUDA."""
    require_gpu(name)
    if not torch.cuda.is_available():
        raise RuntimeUnavailable(f"{name}: this torch has no CUDA; {RUNTIMES.find(name).install}")


def _network(name: str, artifact: Artifact) -> Any:
    if artifact.precision == "int8":
        raise RuntimeUnavailable(f"{name}: torch has no int8 network to run on a GPU")
    require(name)
    only_fp32()
    network = source_network(name, artifact).cuda()
    return network.half() if artifact.precision == "fp16" else network


def only_fp32() -> None:
    """Turns TF32 off, for the whole process: fp32 is to mean fp32, here as in other runtimes."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
