"""Loads our artifacts and the peers' files of a network, and compares their logits with torch's."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from artifact.artifact import Artifact
from artifact.gates import limits_for
from artifact.golden import check_golden, relative_error
from artifact.records import Limits, Logits
from artifact.runtimes.base import Runtime, is_servable, list_runtimes, load_runtime, runs_on_gpu
from bench.peers.material import VERSIONS
from bench.peers.record import PeerRow
from bench.peers.registry import PeerSpec, Setting
from core.errors import in_words
from core.preprocess import Pixels
from export.network import Network
from export.samples import stack as stacked

# Held-out images that are compared; with random weights, classes say little.
IMAGES, RANDOM_IMAGES = 64, 16
Infer = Callable[[Pixels], Logits]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row without a latency, and what runs one image; None where it cannot run."""

    row: PeerRow
    infer: Infer | None = None


class Candidates:
    """The candidates of one network.

    Args:
        network: the network.
        blank: its row without a candidate.
        stack: closes the runtimes.

    Attributes:
        pixels: uint8 (n, H, W, C), the held-out images.
    """

    def __init__(self, network: Network, blank: PeerRow, stack: ExitStack) -> None:
        self._blank, self._stack = blank, stack
        count = RANDOM_IMAGES if network.weights == "random" else IMAGES
        self.pixels = stacked(network.held_out[:count], network.preprocess, network.truncated)
        with torch.inference_mode():
            logits = network.module.eval()(torch.from_numpy(self.pixels))
        self._logits: Logits = logits.numpy()

    def ours(self, artifact: Artifact) -> Iterator[Candidate]:
        """Yields an artifact in each runtime of a CPU that a server can use.

        It holds its gates already, or there would be no artifact; each runtime must reproduce its
        golden batch.
        """
        for name in list_runtimes(artifact.format, artifact.precision):
            if is_servable(name) and not runs_on_gpu(name):
                row = replace(
                    self._blank,
                    setting=f"{artifact.name} in {name}",
                    precision=artifact.precision,
                )
                yield self._tried(row, partial(self._open, name, artifact))

    def peer(
        self, spec: PeerSpec, folder: Path, failed: Mapping[str, str], missing: str | None
    ) -> Iterator[Candidate]:
        """Yields a peer in each of its settings.

        Args:
            spec: the peer.
            folder: what it made.
            failed: kind of files to the reason why they were not made.
            missing: why the peer cannot run at all; None if it can.
        """
        for setting in spec.settings:
            row = replace(
                self._blank,
                toolchain=spec.name,
                setting=setting.name,
                precision=setting.precision,
            )
            if reason := missing or setting.absent or failed.get(setting.files):
                yield Candidate(replace(row, reason=reason))
            else:
                made = folder / setting.files
                tools = json.loads((made / VERSIONS).read_text())
                yield self._tried(replace(row, tools=tools), partial(_load, spec, setting, made))

    def _open(self, name: str, artifact: Artifact) -> Runtime:
        runtime = self._stack.enter_context(load_runtime(name, artifact, threads=1))
        check_golden(runtime, artifact)
        return runtime

    def _tried(self, row: PeerRow, load: Callable[[], Infer]) -> Candidate:
        try:
            infer = load()
            logits = np.concatenate([infer(image[None]) for image in self.pixels])
        except Exception as error:  # native libraries raise any type; the others must go on
            return Candidate(replace(row, reason=in_words(error)))
        if logits.shape != self._logits.shape or not np.isfinite(logits).all():
            return Candidate(replace(row, reason=f"logits {list(logits.shape)}, or not finite"))
        agreement = float(np.mean(logits.argmax(axis=1) == self._logits.argmax(axis=1)))
        far = relative_error(logits, self._logits)
        limits = limits_for(row.precision, weights=row.weights, labelled=False)
        judged = replace(
            row,
            agreement=agreement,
            error=far,
            images=len(logits),
            missed=_missed(limits, agreement, far),
        )
        return Candidate(judged, infer)


def _load(spec: PeerSpec, setting: Setting, folder: Path) -> Infer:
    module = importlib.import_module(spec.module)
    if hasattr(module, "require"):
        module.require(setting.name)
    infer: Infer = module.load(setting.name, folder)
    return infer


def _missed(limits: Limits, agreement: float, error: float) -> str | None:
    """Returns the gate that is missed, in words; None if they hold."""
    if limits.top1_agreement is not None and agreement < limits.top1_agreement:
        return f"agreement {agreement:.1%}, must be at least {limits.top1_agreement:.1%}"
    if limits.relative_error is not None and error > limits.relative_error:
        return f"relative error {error:.2g}, must be at most {limits.relative_error:.2g}"
    return None
