"""One training run, from data to checkpoint."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import warnings
from pathlib import Path

import pytorch_lightning as lightning
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import CSVLogger

from models.errors import UserError
from models.files import staged
from models.registry import check_input_size
from training.checkpoint import checkpoint_path, run_folder
from training.data import ImageData
from training.loader import loaders
from training.module import ClassifierModule
from training.recipe import Recipe


def fit(model: str, data: ImageData, recipe: Recipe) -> Path:
    """Returns the checkpoint of a finished run in ``runs/<model>-<data>/``.

    Beside it stand ``recipe.json`` and ``metrics.csv``. An earlier run of the same network and
    data is replaced when this one is complete.

    Raises:
        UserError: an unknown network or one that cannot take the size, an image that cannot be
            read, too few images for a batch.
    """
    check_input_size(model, recipe.crop)
    if len(data.train) < recipe.batch_size:
        raise UserError(
            f"batch_size is {recipe.batch_size}, more than the {len(data.train)} training images "
            f"of {data.name}; try --recipe.batch-size {len(data.train) // 2 or 1}"
        )
    lightning.seed_everything(recipe.seed, workers=True, verbose=False)
    module = ClassifierModule(model, data, recipe)
    train, val = loaders(data, recipe)
    run = run_folder(model, data.name)
    with staged(run) as folder:
        (folder / "recipe.json").write_text(json.dumps(dataclasses.asdict(recipe), indent=1) + "\n")
        trainer = _trainer(recipe, folder)
        with warnings.catch_warnings():
            # A few small images need no worker processes; Lightning would advise them anyway.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # inside Lightning
            trainer.fit(module, train, val)
        if trainer.interrupted:
            raise KeyboardInterrupt
        trainer.save_checkpoint(checkpoint_path(folder), weights_only=True)
        (folder / "logs" / "metrics.csv").rename(folder / "metrics.csv")
        shutil.rmtree(folder / "logs")
    return checkpoint_path(run)


def _trainer(recipe: Recipe, folder: Path) -> lightning.Trainer:
    for name in ("pytorch_lightning", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return lightning.Trainer(
        max_epochs=recipe.epochs,
        logger=CSVLogger(folder, name="logs", version=""),
        callbacks=[RichProgressBar(leave=True, console_kwargs={"stderr": True})],
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
