"""The torch network itself, as every other runtime is compared with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import torch

from artifact.artifact import Artifact
from artifact.records import Logits
from artifact.runtimes.base import Runtime, RuntimeUnavailable, check_pixels
from core.errors import UserError
from core.preprocess import Pixels
from export.rebuild import rebuild
from models.classifier import Classifier
from models.inference_form import inference_form

COMPILERS = ("c++", "g++", "clang++")


class EagerRuntime(Runtime):
    """A torch module on the CPU.

    Torch's thread count belongs to the process: it is set for each call and holds until another
    sets it.
    """

    def __init__(
        self, name: str, artifact: Artifact, network: Callable[[Any], Any], threads: int
    ) -> None:
        self.name = name
        self._artifact = artifact
        self._network: Callable[[Any], Any] | None = network
        self._threads = threads

    @torch.inference_mode()
    def __call__(self, pixels: Pixels) -> Logits:
        """Returns float32 logits (N, C) of uint8 pixels (N, H, W, 3)."""
        assert self._network is not None, "called after the runtime was closed"
        check_pixels(pixels, self._artifact)
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        logits: Logits = self._network(torch.from_numpy(pixels)).numpy()
        return logits

    def close(self) -> None:
        """Frees what the runtime holds; no call may follow."""
        self._network = None


def load(artifact: Artifact, *, threads: int | None = None) -> EagerRuntime:
    """Returns the network ``artifact`` was made from, ``threads`` to a call (all cores if None).

    Raises:
        RuntimeUnavailable: its weights are not on this machine.
    """
    network = source_network("torch", artifact)
    return EagerRuntime("torch", artifact, network, threads or torch.get_num_threads())


def require_compiler(name: str) -> None:
    """Raises RuntimeUnavailable if there is no C++ compiler on the PATH."""
    if not any(map(shutil.which, COMPILERS)):
        raise RuntimeUnavailable(
            f"{name}: torch compiles C++ for a CPU, and no compiler is on the PATH "
            f"({', '.join(COMPILERS)}); install one, such as: apt-get install g++"
        )


def load_compiled(artifact: Artifact, *, threads: int | None = None) -> EagerRuntime:
    """Returns what ``torch.compile`` makes of the network of :func:`load`.

    The first call at each batch size compiles, for up to a minute; torch keeps the result for the
    next process.

    Raises:
        RuntimeUnavailable: its weights are not on this machine, or no C++ compiler is.
    """
    require_compiler("torch-compile")
    network = torch.compile(source_network("torch-compile", artifact), dynamic=False)
    return EagerRuntime("torch-compile", artifact, network, threads or torch.get_num_threads())


def load_bare(
    network: torch.nn.Module, graph: bytes, inputs: Any, threads: int
) -> Callable[[], torch.Tensor]:
    """Returns a call of a network that is no artifact, channels last; see :class:`RuntimeSpec`."""
    network.to(memory_format=torch.channels_last)
    images = torch.from_numpy(inputs).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def call() -> torch.Tensor:
        if torch.get_num_threads() != threads:  # a number per process: others set it, too
            torch.set_num_threads(threads)
        outputs: torch.Tensor = network(images)
        return outputs

    return call


def source_network(name: str, artifact: Artifact) -> Classifier:
    """Returns the network ``artifact`` was made from, channels last, on the CPU.

    Args:
        name: of the runtime; it opens the error.
        artifact: what was made from it.

    Raises:
        RuntimeUnavailable: its weights are not on this machine.
    """
    try:
        network = rebuild(artifact)
    except UserError as error:
        raise RuntimeUnavailable(f"{name}: {error}") from None
    # Pixels arrive channels last; weights in the same order spare a copy per convolution.
    return inference_form(network).to(memory_format=torch.channels_last)
