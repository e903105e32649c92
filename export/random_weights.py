"""Random weights, the same on every call: for latency only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch

from core.preprocess import Preprocess
from export.samples import photos, stack
from models.channels import adapted_form
from models.classifier import IMAGENET_MEAN, IMAGENET_STD, Classifier
from models.imagenet import PublishedForm
from models.registry import build_model
from models.weights import open_branches, settle_batch_norm

RANDOM_SEED = 0
SETTLING = 16  # photos from which random weights get their batch norm statistics
_DRAWING = Lock()  # all threads share torch's random generator


def random_module(model: str, preprocess: Preprocess) -> Classifier:
    """Returns a network with the same random weights on every call.

    It uses one thread and its own random generator: with several threads, sums are added in
    another order, which a deep network amplifies to 0.5 %.
    """
    with _DRAWING, _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        channels = preprocess.channels
        _, mean, std = adapted_form(
            PublishedForm(preprocess, IMAGENET_MEAN, IMAGENET_STD), channels
        )
        module = Classifier(
            build_model(model, size=preprocess.crop, channels=channels), mean=mean, std=std
        )
        open_branches(module)
        calibration, _ = photos()
        pixels = stack(calibration[:SETTLING], preprocess)
        settle_batch_norm(module, [torch.from_numpy(pixels)])
    return module


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
