"""ExecuTorch on a CPU, by XNNPACK: what runs a .pte file on a phone, too.

It stands here and not with the other runtimes because its Python binding takes and gives tensors of
torch, which a server does not have.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch

from artifact.artifact import Artifact
from artifact.records import Logits
from artifact.runtimes.base import (
    RUNTIMES,
    Runtime,
    RuntimeUnavailable,
    check_pixels,
    require_import,
)
from core.cores import usable_cores
from core.errors import first_line
from core.preprocess import Pixels

_BACKEND = "XnnpackBackend"
_BYTE, _FLOAT = 0, 6  # torch's ScalarType
_pools = 0  # how often the thread pool was replaced


class ExecutorchRuntime(Runtime):
    """A .pte file, whose program takes one image: those of a batch run one after the other.

    The thread pool belongs to the process: it is set for each call and holds until another sets it.
    A method keeps the pool that it was loaded with, which is freed once another is set, so it is
    then loaded again.
    """

    name = "executorch"
    parallel = False  # the binding holds Python's lock for the whole call

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self._artifact = artifact
        self._threads = threads
        self._pool = _pool_of(threads)
        self._method: Any = _method(artifact)

    def __call__(self, pixels: Pixels) -> Logits:
        """Returns float32 logits (N, C) of uint8 pixels (N, H, W, 3)."""
        assert self._method is not None, "called after the runtime was closed"
        check_pixels(pixels, self._artifact)
        pool = _pool_of(self._threads)
        if pool != self._pool:
            self._method, self._pool = _method(self._artifact), pool
        images = torch.from_numpy(np.ascontiguousarray(pixels)).split(1)
        return np.concatenate([self._method.execute([image])[0].numpy() for image in images])

    def close(self) -> None:
        """Frees what the runtime holds; no call may follow."""
        self._method = None


def _pool_of(threads: int) -> int:
    """Sets the process's number of threads, and returns which of its thread pools that is."""
    global _pools
    from executorch.extension.pybindings import portable_lib

    if portable_lib._threadpool_get_thread_count() != threads:
        portable_lib._unsafe_reset_threadpool(threads)  # unsafe for a call that runs, and methods
        _pools += 1
    return _pools


def require(name: str) -> None:
    """Raises RuntimeUnavailable if ExecuTorch, or XNNPACK in it, is not here.

    Args:
        name: of the runtime, or of the format, which is called the same.
    """
    # torchao, which it imports, registers enums in a way that torch warns of.
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    require_import(name, "executorch.runtime")
    from executorch.runtime import Runtime as Executor

    if not Executor.get().backend_registry.is_available(_BACKEND):
        install = RUNTIMES.find(name).install
        raise RuntimeUnavailable(f"{name}: this build of ExecuTorch has no {_BACKEND}; {install}")


def load(artifact: Artifact, *, threads: int | None = None) -> ExecutorchRuntime:
    """Returns ``artifact`` on the CPU, ``threads`` to a call (all cores if None).

    Raises:
        RuntimeUnavailable: ExecuTorch is not installed, or cannot read the file, or that takes and
            gives something else than the manifest says.
    """
    require("executorch")
    try:
        return ExecutorchRuntime(artifact, threads or usable_cores())
    except (RuntimeError, ValueError, KeyError) as error:
        raise RuntimeUnavailable(
            f"executorch: cannot run {artifact.model_file} ({first_line(error)}); export it again"
        ) from error


def _method(artifact: Artifact) -> Any:
    """Returns the method ``forward`` of an artifact's file.

    Raises:
        ValueError: it takes or gives something else than the manifest says.
    """
    from executorch.runtime import Runtime as Executor

    method = Executor.get().load_program(artifact.model_file).load_method("forward")
    described = method.metadata
    found = [
        (count(), [(info(index).dtype(), info(index).sizes()) for index in range(count())])
        for count, info in (
            (described.num_inputs, described.input_tensor_meta),
            (described.num_outputs, described.output_tensor_meta),
        )
    ]
    wanted = [
        (1, [(_BYTE, (1, *artifact.preprocess.shape))]),
        (1, [(_FLOAT, (1, len(artifact.labels)))]),
    ]
    if found != wanted:
        raise ValueError(f"its ends are {found}, and must be {wanted}")
    return method
