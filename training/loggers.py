"""The loggers of a run: where its figures go, besides its own files."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, get_args

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from core.errors import UserError, first_line, unknown
from core.files import write_whole
from training.accelerators import is_first_process
from training.options import LoggerName
from training.recipe import Recipe

PROJECT = "pocketnets"  # of Weights & Biases; the experiment of MLflow
_IDS = "loggers.json"  # of the runs in other places, in the folder of this one
_MLFLOW_URI = "MLFLOW_TRACKING_URI"


def check_loggers(names: Sequence[LoggerName]) -> None:
    """Raises UserError if a logger is unknown, or its package is not installed."""
    for name in names:
        if name not in get_args(LoggerName):
            raise unknown("logger", name, get_args(LoggerName))
        if name in ("wandb", "mlflow") and find_spec(name) is None:
            raise UserError(f"--log {name}: {name} is not installed; pip install '.[{name}]'")


def make_loggers(
    names: Sequence[LoggerName], folder: Path, *, model: str, data: str, recipe: Recipe
) -> list[Logger]:
    """Returns the loggers of a run, which has their identifiers in its folder, for resuming.

    Args:
        names: names of the loggers.
        folder: folder of the unfinished run.
        model: registry name of the network.
        data: name of the data set.
        recipe: the recipe, which all but TensorBoard's get as parameters.

    Raises:
        UserError: a package is not installed, or the server refuses.
    """
    check_loggers(names)
    loggers: list[Logger] = []
    for name in dict.fromkeys(names):
        if name == "tensorboard":
            loggers.append(TensorBoardLogger(folder, name=None, version="tensorboard"))
            continue
        try:
            logger = _MAKERS[name](folder, f"{model}-{data}")
            if is_first_process():
                logger.log_hyperparams({"model": model, "data": data, **asdict(recipe)})
        except Exception as error:  # of the two clients: they have no common base class
            if name == "csv":
                raise
            raise UserError(f"--log {name}: {first_line(error)}") from error
        loggers.append(logger)
    return loggers


def finish_loggers(loggers: Sequence[Logger]) -> None:
    """Ends the runs at Weights & Biases, which otherwise last until the process ends."""
    for logger in loggers:
        if type(logger).__name__ == "WandbLogger" and is_first_process():
            logger.experiment.finish()  # type: ignore[attr-defined]


def _csv(folder: Path, _: str) -> Logger:
    # Lightning deletes the figures of a folder that is there: a resumed run gets another one.
    free = next(name for name in _versions() if not (folder / name).exists())
    return CSVLogger(folder, name="", version=free)


def _versions() -> Any:
    yield "csv"
    yield from (f"csv-{number}" for number in count(2))


def _wandb(folder: Path, name: str) -> Logger:
    from pytorch_lightning.loggers import WandbLogger

    found = _identifiers(folder).get("wandb")
    identifier = found or uuid.uuid4().hex[:8]
    logger = WandbLogger(
        name=name,
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        save_dir=folder,
        id=identifier,
        settings=_wandb_settings(),
    )
    if is_first_process():
        _ = logger.experiment  # raises here where it cannot log in
        _remember(folder, wandb=identifier)
    return logger


def _wandb_settings() -> Any:
    import wandb

    return wandb.Settings(silent=True)


def _mlflow(folder: Path, name: str) -> Logger:
    from pytorch_lightning.loggers import MLFlowLogger

    logger = MLFlowLogger(
        experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT),
        run_name=name,
        tracking_uri=os.environ.get(_MLFLOW_URI) or "sqlite:///mlflow.db",
        run_id=_identifiers(folder).get("mlflow"),
    )
    if is_first_process() and (run := logger.run_id):
        _remember(folder, mlflow=run)
    return logger


_MAKERS = {"csv": _csv, "wandb": _wandb, "mlflow": _mlflow}


def _identifiers(folder: Path) -> Mapping[str, str]:
    file = folder / _IDS
    found: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    return found


def _remember(folder: Path, **found: str) -> None:
    known = {**_identifiers(folder), **found}
    write_whole(folder / _IDS, (json.dumps(known, indent=1) + "\n").encode())
