"""Verifies the artifacts of a network against torch, on real images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from artifact.answering import answering_of
from artifact.artifact import Artifact
from artifact.parity import measure_parity
from artifact.profile import Profiler
from artifact.records import Logits, Metrics
from artifact.runtimes.base import load_runtime
from core import cli
from core.preprocess import Pixels
from export.network import Network
from export.samples import stack
from training.data import pixel_batches
from training.summary.confusion import no_better_than_chance
from training.summary.label_figures import (
    Flags,
    Scores,
    mean_average_precision,
    no_better_than_shuffled,
)

IMAGES, FEW_IMAGES = 64, 32  # the latter for networks with more MACs than HEAVY
HEAVY = 2_000_000_000  # MACs
GOLDEN_IMAGES = 8


@dataclass(frozen=True)
class _Accuracy:
    """How right answers are.

    Attributes:
        top1: fraction of the images answered correctly.
        several: of several labels: (N, C), whether each image has each, and their scores.
    """

    top1: float
    several: tuple[Flags, Scores] | None

    @cached_property
    def mean_ap(self) -> float | None:
        """Returns the mAP; None for one class."""
        return mean_average_precision(*self.several) if self.several else None


class Prover:
    """Measures artifacts of one network, all on the same images, against the same torch logits.

    Args:
        network: the network that they were made from.
        max_batch: their largest batch size.
        macs: multiply-accumulates per image.
    """

    def __init__(self, network: Network, *, max_batch: int, macs: int) -> None:
        self._network = network
        self._max_batch = max_batch
        self._images = FEW_IMAGES if macs > HEAVY else IMAGES

    def prove(
        self, draft: Artifact, golden: tuple[Pixels, Logits] | None = None
    ) -> tuple[Artifact, Logits]:
        """Returns ``draft`` with its figures, and the logits of its golden batch.

        Args:
            draft: an artifact whose model file is in its folder.
            golden: its existing golden batch; None to make one from its output.

        Raises:
            RuntimeUnavailable: this machine cannot run it.
        """
        # All cores, as nothing is timed here.
        with load_runtime(draft.spec.proving_runtime, draft) as runtime:
            golden = golden or (self.golden_pixels, runtime(self.golden_pixels))
            parity = measure_parity(
                runtime,
                draft,
                self._pixels,
                self._logits,
                reference=self._network.reference,
                golden=golden,
            )
            profiler = Profiler(answering_of(draft))
            labelled = self._network.labelled
            metrics = self._metrics(runtime.name, runtime, profiler) if labelled else None
            profile = profiler.profile() if labelled else None
        return replace(draft, parity=parity, metrics=metrics, profile=profile), golden[1]

    @property
    def golden_pixels(self) -> Pixels:
        """Returns uint8 (n, H, W, 3): the pixels of the golden batch."""
        return self._pixels[: min(GOLDEN_IMAGES, self._max_batch)]

    @cached_property
    def _pixels(self) -> Pixels:
        """Returns uint8 (n, H, W, 3): held-out images."""
        network = self._network
        return stack(network.held_out[: self._images], network.preprocess, network.truncated)

    @cached_property
    def _logits(self) -> Logits:
        """Returns float32 (n, C): torch's logits of :attr:`_pixels`."""
        return self._torch(self._pixels)

    @cached_property
    def _torch_accuracy(self) -> _Accuracy:
        found = self._accuracy(self._torch)
        if self._network.foreign:
            self._warn_of_chance(found)
        return found

    def _warn_of_chance(self, found: _Accuracy) -> None:
        if found.several:
            words = no_better_than_shuffled(*found.several)
        else:
            labels = Counter(label for _, label in self._network.held_out)
            images, largest = labels.total(), max(labels.values())
            words = no_better_than_chance(round(found.top1 * images), images, largest)
        if words:
            cli.notes().print(
                f"warning: {self._network.source.origin}: {words}; the usual causes are labels in "
                "another order than the logits, and images prepared otherwise than in training "
                "(size, resize, interpolation, mean, std)",
                soft_wrap=True,
                markup=False,
            )

    def _metrics(
        self, name: str, runtime: Callable[[Pixels], Logits], profiler: Profiler
    ) -> Metrics:
        found, torch_found = self._accuracy(runtime, profiler), self._torch_accuracy
        return Metrics(
            top1=found.top1,
            torch_top1=torch_found.top1,
            images=len(self._network.held_out),
            runtime=name,
            mean_ap=found.mean_ap,
            torch_mean_ap=torch_found.mean_ap,
            part=self._network.part,
        )

    def _accuracy(
        self, run: Callable[[Pixels], Logits], profiler: Profiler | None = None
    ) -> _Accuracy:
        network, answering = self._network, self._network.answering
        batches = pixel_batches(
            network.held_out,
            network.preprocess,
            size=self._max_batch,
            truncated=network.truncated,
        )
        right, outputs = 0, []
        for pixels, indices in batches:
            logits, truth = run(pixels), network.targets(indices)
            if profiler:
                profiler.add(pixels, logits)
            right += int((answering.sets(logits) == truth).all(axis=1).sum())
            if answering.task == "multi":
                outputs.append((truth, answering.scores(logits)))
        several = None
        if outputs:
            truth, scores = map(np.concatenate, zip(*outputs, strict=True))
            several = truth, scores
        return _Accuracy(right / len(network.held_out), several)

    @torch.inference_mode()
    def _torch(self, pixels: Pixels) -> Logits:
        logits: Logits = self._network.module(torch.from_numpy(pixels)).numpy()
        return logits
