"""Lightning's trainer, for a recipe and a machine."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import Logger

from core import cli
from core.machine import cpu_name
from training.accelerators import Accelerators, is_first_process
from training.averaging import Averaging, PreciseBN
from training.estimate import Estimate
from training.finetuning import Frozen
from training.progress import ProgressBar
from training.recipe import Recipe
from training.records import MONITORS
from training.run import KeepEpochs, PartialRun, WholeFileIO
from training.stopping import OwnSignals, StopAfterEpoch


def make_trainer(
    model: str,
    recipe: Recipe,
    machine: Accelerators,
    partial: PartialRun,
    loggers: Sequence[Logger],
    *,
    held_out: int,
) -> lightning.Trainer:
    """Returns the trainer of a run, which saves every epoch in the run's folder.

    Args:
        model: registry name of the network.
        recipe: the recipe.
        machine: devices to train on.
        partial: the run's folder.
        loggers: where its figures go.
        held_out: number of held-out images.
    """
    console = cli.notes()
    console.quiet = not is_first_process()
    best = MONITORS[recipe.chosen_by] if recipe.chosen_by else None
    callbacks: list[lightning.Callback] = [
        OwnSignals(),
        StopAfterEpoch(console),
        ProgressBar(console),
        Estimate(console, held_out),
        KeepEpochs(partial.folder, best),
    ]
    callbacks += learning_callbacks(model, recipe)
    if recipe.patience is not None:
        assert best is not None
        callbacks.append(
            EarlyStopping(
                best.field,
                mode="max" if best.higher else "min",
                patience=recipe.patience,
                check_on_train_epoch_end=True,
            )
        )
    return lightning.Trainer(
        logger=list(loggers),
        callbacks=callbacks,
        plugins=[WholeFileIO()],
        **trainer_options(recipe, machine),
    )


def learning_callbacks(model: str, recipe: Recipe) -> list[lightning.Callback]:
    """Returns the callbacks that change what is learned: freezing, averaging, statistics."""
    callbacks: list[lightning.Callback] = []
    if recipe.freeze_epochs or recipe.unfreeze_every or recipe.keep_statistics:
        callbacks.append(Frozen(model, recipe))
    if recipe.ema is not None:
        callbacks.append(Averaging(recipe.ema))
    callbacks.append(PreciseBN(always=recipe.ema is not None))
    return callbacks


def processes(machine: Accelerators) -> int:
    """Returns the number of processes of a run on ``machine``, one for each device."""
    here = machine.devices or (torch.cuda.device_count() if _on_gpu(machine) else 1)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        here = int(os.environ["LOCAL_WORLD_SIZE"])
    return here * machine.nodes


def _on_gpu(machine: Accelerators) -> bool:
    return machine.accelerator == "gpu" or (
        machine.accelerator == "auto" and torch.cuda.is_available()
    )


def trainer_options(recipe: Recipe, machine: Accelerators) -> dict[str, Any]:
    """Returns the arguments of Lightning's trainer for ``recipe`` on ``machine``."""
    gpu = _on_gpu(machine)
    devices: int | str = machine.devices or ("auto" if gpu else 1)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
    # Processes await the gradients of all parameters, of which frozen ones have none.
    frozen = max(recipe.freeze_epochs, recipe.unfreeze_every) > 0 and processes(machine) > 1
    return {
        "accelerator": "gpu" if gpu else "cpu",
        "devices": devices,
        "num_nodes": machine.nodes,
        "strategy": "ddp_find_unused_parameters_true" if frozen else "auto",
        "max_epochs": recipe.epochs,
        "precision": precision_for(recipe, gpu=gpu),
        "accumulate_grad_batches": recipe.accumulate,
        "gradient_clip_val": recipe.clip,
        "deterministic": recipe.deterministic,
        "benchmark": gpu and not recipe.deterministic,
        "use_distributed_sampler": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }


def precision_for(recipe: Recipe, *, gpu: bool) -> Any:
    """Returns Lightning's name of the recipe's precision."""
    chosen = recipe.precision
    if recipe.qat:
        chosen = "fp32"
    if chosen == "auto":
        chosen = "fp32" if not gpu else "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[chosen]


def device_name(trainer: lightning.Trainer) -> str:
    """Returns the name of the device that a trainer computes on."""
    if trainer.strategy.root_device.type == "cuda":
        name = torch.cuda.get_device_name(trainer.strategy.root_device)
    else:
        name = f"{cpu_name()} ({torch.get_num_threads()} threads)"
    return f"{trainer.world_size} x {name}" if trainer.world_size > 1 else name


@contextmanager
def quiet() -> Iterator[None]:
    """Silences Lightning's log and its warnings about a run's settings."""
    for name in ("pytorch_lightning", "lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Lightning advises worker processes even for a few small images.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # inside Lightning
        warnings.filterwarnings("ignore", message=".*on_before_batch_transfer.*")
        yield
