"""Measures images/s of the loader alone, the training step alone, both, and plain loops."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from torch import nn

from core.errors import UserError
from training.accelerators import Accelerators
from training.data import ImageData
from training.loader import Batch, Loaders
from training.module import ClassifierModule
from training.networks import first_network
from training.optimizer import make_optimizer
from training.recipe import Recipe
from training.trainer import quiet, trainer_options

WARM_UP = 3  # untimed steps
REFERENCE = "plain loop, fp32"
TRAINER = "trainer"
ROUNDS = 3

Step = Callable[[Batch], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """Images per second, each the median of its samples.

    Attributes:
        loader: reading, decoding and augmenting alone.
        step: forward, backward and optimiser on batches in memory, through the trainer.
        both: a run as ``make train`` does it.
        loops: name of a plain loop to its rate; interleaved with ``step``, one step each.
        device: the device, as text.
    """

    loader: float
    step: float
    both: float
    loops: dict[str, float]
    device: str


def training_rates(model: str, data: ImageData, recipe: Recipe, *, steps: int) -> Rates:
    """Measures how fast ``model`` trains on ``data`` by ``recipe``, with ``steps`` timed steps.

    Raises:
        UserError: fewer than two batches of training images.
    """
    need = steps + WARM_UP
    if len(data.train) < 2 * recipe.batch_size:
        raise UserError(
            f"batch_size is {recipe.batch_size}: {len(data.train)} training images hold fewer "
            "than two batches; lower it"
        )
    loader = Loaders(data, recipe).train_dataloader()
    kept = list(islice(loader, 4))
    loading, whole = [], []
    for _ in range(ROUNDS):  # interleaved, as the machine can be slow for seconds at a time
        loading += _gaps(islice(_forever(loader), need))[WARM_UP:]
        whole += _train(model, data, recipe, loader, need, {})[TRAINER]
    loops = {} if _gpu() else _plain_loops(model, data, recipe)
    turns = _train(model, data, recipe, _Kept(kept), need * ROUNDS, loops)
    images = len(kept[0].labels)
    return Rates(
        loader=images / float(np.median(loading)),
        both=images / float(np.median(whole)),
        step=images / float(np.median(turns.pop(TRAINER))),
        loops={name: images / float(np.median(samples)) for name, samples in turns.items()},
        device="GPU" if _gpu() else f"CPU, {torch.get_num_threads()} threads",
    )


class _Kept:
    """An endless iterable of batches in memory; Lightning would take a list for several loaders."""

    def __init__(self, batches: list[Batch]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return _forever(self._batches)


class _Turns(lightning.Callback):
    """A callback that times each step of the trainer, and then one step of each plain loop."""

    def __init__(self, loops: dict[str, Step]) -> None:
        super().__init__()
        self._loops = loops
        self._random = np.random.default_rng(0)
        self._since = 0.0
        self.samples: dict[str, list[float]] = {name: [] for name in (TRAINER, *loops)}

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Starts the clock."""
        self._since = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Records the trainer's step, times a step of each plain loop, and restarts the clock."""
        if _gpu():
            torch.cuda.synchronize()
        self.samples[TRAINER].append(time.perf_counter() - self._since)
        for name in self._random.permutation(list(self._loops)):
            start = time.perf_counter()
            self._loops[name](batch)
            self.samples[name].append(time.perf_counter() - start)
        self._since = time.perf_counter()


def _train(
    model: str,
    data: ImageData,
    recipe: Recipe,
    batches: Iterable[Any],
    steps: int,
    loops: dict[str, Step],
) -> dict[str, list[float]]:
    """Returns name to seconds of each step after warm-up, for :data:`TRAINER` and plain loops."""
    network, _ = first_network(model, data.labels, recipe)
    module = ClassifierModule(network, {}, data.labels, recipe)
    turns = _Turns(loops)
    options = trainer_options(recipe, Accelerators())
    options |= {"max_epochs": -1, "max_steps": steps, "logger": False, "callbacks": [turns]}
    options |= {"enable_checkpointing": False, "limit_val_batches": 0}
    with quiet():
        lightning.Trainer(**options).fit(module, batches, batches)
    return {name: samples[WARM_UP:] for name, samples in turns.samples.items()}


def _plain_loops(model: str, data: ImageData, recipe: Recipe) -> dict[str, Step]:
    """Returns the training loop of torchvision's reference script, and variants, on the CPU."""
    return {
        REFERENCE: PlainLoop(model, data, recipe),
        "plain loop, fp32, channels_last": PlainLoop(model, data, recipe, last=True),
        "plain loop, bf16": PlainLoop(model, data, recipe, bf16=True),
        "plain loop, bf16, channels_last": PlainLoop(model, data, recipe, last=True, bf16=True),
    }


class PlainLoop:
    """The training step of torchvision's references/classification/train.py, one step per call.

    That script normalises images in its loader; here the network does so within the step, as in
    the trainer, so that both do the same work. Its loader makes NCHW tensors, whose convolutions
    take longer on a CPU: with ``last`` they are NHWC in memory, as the trainer's are.
    """

    def __init__(
        self,
        model: str,
        data: ImageData,
        recipe: Recipe,
        *,
        last: bool = False,
        bf16: bool = False,
    ) -> None:
        self.network, _ = first_network(model, data.labels, recipe)
        layout = torch.channels_last if last else torch.contiguous_format
        self.network.train().to(memory_format=layout)
        self._optimizer = make_optimizer(self.network, recipe, fused=False)  # as in that script
        self._criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self._bf16, self._last = bf16, last

    def __call__(self, batch: Batch) -> None:
        """Trains on one batch."""
        pixels = batch.pixels
        if not self._last:  # NHWC by their shape, NCHW in memory
            pixels = pixels.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            logits = self.network(pixels)
            loss = self._criterion(logits, batch.labels)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        (logits.argmax(dim=1) == batch.labels).float().mean().item()
        loss.item()


def _gaps(batches: Iterable[object]) -> list[float]:
    """Returns the seconds between successive batches."""
    times = [time.perf_counter()]
    times += [time.perf_counter() for _ in batches]
    return np.diff(times).tolist()


def _forever(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def _gpu() -> bool:
    return torch.cuda.is_available()
