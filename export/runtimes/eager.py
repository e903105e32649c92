"""The torch network itself, as every other runtime is compared with it."""

from __future__ import annotations

import torch

from export.artifact import Artifact
from export.network import rebuild
from export.records import Logits
from export.runtimes.base import Runtime, RuntimeUnavailable, check_pixels
from models.classifier import Classifier
from models.errors import UserError
from models.preprocess import Pixels


class EagerRuntime(Runtime):
    """A torch module on the CPU, called as it is.

    Torch's thread count belongs to the process: it is set for each call and holds until another
    sets it.
    """

    name = "torch"

    def __init__(self, artifact: Artifact, network: Classifier, threads: int) -> None:
        self._artifact = artifact
        self._network: Classifier | None = network
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
    try:
        network = rebuild(artifact)
    except UserError as error:
        raise RuntimeUnavailable(f"torch: {error}") from None
    # Pixels arrive channels last; weights in the same order spare a copy per convolution.
    network.to(memory_format=torch.channels_last)
    return EagerRuntime(artifact, network, threads or torch.get_num_threads())
