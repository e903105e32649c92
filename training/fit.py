"""One training run, from data to checkpoint."""

from __future__ import annotations

import errno
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging
from pytorch_lightning.loggers import TensorBoardLogger

from models import cli
from models.classifier import Classifier
from models.errors import UserError
from models.files import write_whole
from models.preprocess import ImageError
from models.registry import build_model, canonical_name, check_input_size
from models.residual import zero_last_gammas
from models.weights import WeightsUnavailable, imagenet_classifier, load_imagenet_weights
from training.checkpoint import checkpoint_path, run_folder
from training.data import ImageData
from training.history import to_csv
from training.loader import Loaders
from training.module import ClassifierModule
from training.progress import ProgressBar
from training.recipe import Recipe
from training.run import KeepEpochs, PartialRun, WholeFileIO, make_plan, read


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Where a run is computed."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """auto: GPUs if there are any."""
    devices: int = 0
    """Processes on this host, one per GPU; 0: all GPUs, or one process on a CPU. Under torchrun,
    what torchrun started."""
    nodes: int = 1
    """Hosts; start the same command on each with torchrun."""


def fit(
    model: str,
    data: ImageData,
    recipe: Recipe,
    *,
    recipe_name: str = "custom",
    machine: Machine | None = None,
    resume: bool = False,
    fresh: bool = True,
    skip_unreadable: bool = False,
) -> Path:
    """Returns the checkpoint of a finished run in ``runs/<model>-<data>/``.

    While it trains it stands in ``runs/<model>-<data>.partial/`` and is saved after every epoch.
    An earlier run of the same network and data is replaced when this one is complete.

    Args:
        model: registry name.
        data: to learn from.
        recipe: what to do.
        recipe_name: what to call it.
        machine: what to compute on; left out, the GPUs of this host, or its CPU.
        resume: go on with the unfinished run of the same network, data and recipe.
        fresh: drop an unfinished run instead of refusing to start.
        skip_unreadable: leave out images that cannot be read, after naming them.

    Raises:
        UserError: an unknown network or one that cannot take the size, an image that cannot be
            read, too few images for a batch, a run that cannot be resumed, no memory or no space.
    """
    recipe.check()
    check_input_size(model, min(recipe.at(0).train_crop or recipe.crop, recipe.crop))
    if len(data.train) < recipe.batch_size:
        raise UserError(
            f"batch_size is {recipe.batch_size}, more than the {len(data.train)} training images "
            f"of {data.name}; try --recipe.batch-size {len(data.train) // 2 or 1}"
        )
    model = canonical_name(model)
    partial = PartialRun(run_folder(model, data.name))
    plan = make_plan(model, data, recipe_name, recipe)
    if resume:
        partial.check_same(plan)
    elif is_first_process():
        partial.start(plan, fresh=fresh)
    last = str(partial.last) if resume and partial.last.exists() else None
    if last:
        read(partial.last)  # refuses a damaged one in our words
    with _quiet(), _one_line(recipe, partial):
        torch.manual_seed(recipe.seed)
        skipped = _Skipped() if skip_unreadable else None
        module = ClassifierModule(
            first_network(model, data.labels, recipe),
            {"model": model, "data": data.name},
            data.labels,
            recipe,
            report=skipped,
        )
        trainer = _trainer(recipe, machine or Machine(), partial)
        trainer.fit(module, datamodule=Loaders(data, recipe), ckpt_path=last, weights_only=True)
        if trainer.interrupted:
            raise KeyboardInterrupt
        if not trainer.is_global_zero:
            return checkpoint_path(run_folder(model, data.name))
        partial.save_final()
        write_whole(partial.folder / "metrics.csv", to_csv(module.history))
        if skipped and skipped.paths:
            names = "".join(f"{path}\n" for path in sorted(skipped.paths))
            write_whole(partial.folder / "unreadable.txt", names.encode())
        return checkpoint_path(partial.finish())


def first_network(model: str, labels: tuple[str, ...], recipe: Recipe) -> Classifier:
    """Returns the network a run starts from: uint8 (N, H, W, 3) -> logits (N, len(labels)).

    Raises:
        UserError: ImageNet weights are asked for and cannot be had, or an option of the recipe
            does not fit the network.
    """
    if recipe.weights == "imagenet":
        try:
            weights = load_imagenet_weights(model)
        except WeightsUnavailable as error:
            raise UserError(f"{error}; or start from random weights: RECIPE=scratch") from None
        network = imagenet_classifier(model, weights, labels)
    else:
        network = Classifier(build_model(model, num_classes=len(labels)))
    if recipe.zero_gamma:
        zero_last_gammas(network)
    if recipe.bn_momentum is not None:
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = recipe.bn_momentum
    if recipe.channels_last:
        network.to(memory_format=torch.channels_last)
    if recipe.compile:
        network.compile()
    return network


def precision_for(recipe: Recipe, *, gpu: bool) -> Any:
    """Returns Lightning's name of the precision a recipe is computed in."""
    chosen = recipe.precision
    if chosen == "auto":
        chosen = "fp32" if not gpu else "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[chosen]


class _Skipped:
    """Names each image that cannot be read, once."""

    def __init__(self) -> None:
        self.paths: set[str] = set()
        self._notes = cli.notes()

    def __call__(self, error: ImageError) -> None:
        if (text := str(error)) not in self.paths:
            self.paths.add(text)
            self._notes.print(f"left out: {text}", soft_wrap=True)


def _trainer(recipe: Recipe, machine: Machine, partial: PartialRun) -> lightning.Trainer:
    gpu = machine.accelerator == "gpu" or (
        machine.accelerator == "auto" and torch.cuda.is_available()
    )
    callbacks: list[lightning.Callback] = [
        ProgressBar(cli.notes()),
        KeepEpochs(partial.folder, best=recipe.patience is not None),
    ]
    if recipe.ema is not None:
        callbacks.append(EMAWeightAveraging(decay=recipe.ema))
    if recipe.patience is not None:
        callbacks.append(
            EarlyStopping(
                "val_top1", mode="max", patience=recipe.patience, check_on_train_epoch_end=True
            )
        )
    devices: int | str = machine.devices or ("auto" if gpu else 1)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
    return lightning.Trainer(
        accelerator="gpu" if gpu else "cpu",
        devices=devices,
        num_nodes=machine.nodes,
        max_epochs=recipe.epochs,
        precision=precision_for(recipe, gpu=gpu),
        accumulate_grad_batches=recipe.accumulate,
        gradient_clip_val=recipe.clip,
        deterministic=recipe.deterministic,
        benchmark=gpu and not recipe.deterministic,
        use_distributed_sampler=False,
        logger=TensorBoardLogger(partial.folder, name=None, version="tensorboard"),
        callbacks=callbacks,
        plugins=[WholeFileIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def is_first_process() -> bool:
    """Returns whether this process, of all that share a run, is the one that writes and speaks.

    From the environment, for it is asked before Lightning knows.
    """
    return all(int(os.environ.get(name, 0)) == 0 for name in ("RANK", "LOCAL_RANK", "NODE_RANK"))


@contextmanager
def _one_line(recipe: Recipe, partial: PartialRun) -> Iterator[None]:
    """Turns what the machine lacks into one line; what was saved before stays, and only that."""
    try:
        with ExitStack() as failed:
            failed.callback(partial.drop_if_empty)
            yield
            failed.pop_all()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(
            f"no space left on the device of {partial.folder}; the last whole epoch is kept: "
            "free some space, then RESUME=1"
        ) from None
    except RuntimeError as error:
        memory = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not memory:
            raise
        raise UserError(
            f"out of memory at batch_size {recipe.batch_size}, accumulate {recipe.accumulate}, "
            f"{recipe.train_crop or recipe.crop} px: try --recipe.accumulate "
            f"{2 * recipe.accumulate} (same result, half the memory), --recipe.batch-size "
            f"{max(1, recipe.batch_size // 2)} or --recipe.precision bf16"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Lightning's advice to itself."""
    for name in ("pytorch_lightning", "lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # A few small images need no worker processes; Lightning would advise them anyway.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # inside Lightning
        warnings.filterwarnings("ignore", message=".*on_before_batch_transfer.*")
        yield
