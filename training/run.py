"""The folder of a run: ``.partial`` during training, renamed when it is complete."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from core.errors import UserError, first_line
from core.files import only_one, replace_folder, sha256, whole_file, write_whole
from training.checkpoint import KEY, checkpoint_path, read_checkpoint
from training.data import ImageData
from training.identity import IMAGE_LIST, RUN_PLAN, changes
from training.module import ClassifierModule
from training.recipe import Recipe
from training.records import Monitor
from training.scan import NAMED, some

LAST, BEST = "last.ckpt", "best.ckpt"
_KINDS = {"model": str, "data": str, "labels": list, "recipe_name": str, "recipe": dict}
_KEPT = ("state_dict", "epoch", "global_step", "pytorch-lightning_version", KEY)


class PartialRun:
    """``runs/<model>-<data>.partial``: an unfinished run, which can be resumed.

    It is renamed to ``runs/<model>-<data>`` at the end; an earlier run is kept until then.

    Args:
        run: the folder of the finished run.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self.folder = run.with_name(f"{run.name}.partial")

    @property
    def last(self) -> Path:
        """Returns the path of the last complete epoch's checkpoint, which may not exist yet."""
        return self.folder / LAST

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Creates the folder and keeps other processes out; in the end removes it if it is empty.

        Raises:
            UserError: another process trains in it.
        """
        busy = (
            f"{self.folder}: another process is training the same network on this data; wait for "
            "it, or train in another folder"
        )
        try:
            with only_one(self.folder, busy):
                yield
        finally:
            with suppress(OSError):
                self.folder.rmdir()

    def check_free(self) -> None:
        """Raises UserError if there is an unfinished or a finished run."""
        if self.last.exists():
            raise UserError(
                f"{self.folder} holds an unfinished run: --resume goes on with it, --fresh drops "
                "it and starts anew"
            )
        if self._run.exists():
            raise UserError(
                f"{self._run} holds a finished run: --fresh trains again and replaces it in the "
                "end; rename it to keep both"
            )

    def start(self, plan: dict[str, Any], images: bytes) -> None:
        """Writes the plan of the run and the list of its images, instead of an unfinished run."""
        for entry in self.folder.iterdir() if self.folder.exists() else ():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / IMAGE_LIST, images)
        write_whole(self.folder / RUN_PLAN, (json.dumps(plan, indent=1) + "\n").encode())

    def drop_if_empty(self) -> None:
        """Removes the folder if no epoch was saved in it, as there is nothing to resume."""
        if not self.last.exists():
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def standing(self) -> Path | None:
        """Returns the folder of the unfinished run if there is one, else of the finished one."""
        folders = (self.folder, self._run)
        return next((folder for folder in folders if (folder / RUN_PLAN).exists()), None)

    def saved_plan(self) -> dict[str, Any]:
        """Returns the plan of the unfinished run.

        Raises:
            UserError: there is no unfinished run, or its plan is damaged.
        """
        return read_plan(self._unfinished())

    def check_same(self, plan: dict[str, Any], images: bytes) -> None:
        """Raises UserError if there is no unfinished run, or :func:`check_same` refuses it."""
        check_same(self._unfinished(), plan, images)

    def _unfinished(self) -> Path:
        if self.standing == self.folder:
            return self.folder
        state = "is finished; --fresh starts anew"
        if self.standing is None:
            state = "was not started; leave out --resume"
        raise UserError(f"nothing to resume in {self.folder}: the run {state}")

    def save_final(
        self,
        metrics: Mapping[str, float] | None = None,
        *,
        answers: Mapping[str, Any] | None = None,
    ) -> Path:
        """Writes the final checkpoint, without the optimiser's state, and returns its path.

        Its weights are those of the best epoch, if the run keeps it, else of the last.

        Args:
            metrics: further metrics to add.
            answers: how logits become answers: the checkpoint's ``temperature``, ``thresholds`` and
                ``abstention``, in types that ``weights_only`` loading allows.
        """
        best = self.folder / BEST
        saved = read_checkpoint(best if best.exists() else self.last)
        saved[KEY]["metrics"] |= metrics or {}
        saved[KEY] |= answers or {}
        path = checkpoint_path(self.folder)
        WholeFileIO().save_checkpoint({key: saved[key] for key in _KEPT}, path)
        return path

    def finish(self) -> Path:
        """Renames the folder to that of the finished run and returns it."""
        replace_folder(self.folder, self._run)
        for name in (LAST, BEST):  # at the very end, as resuming needs them
            (self._run / name).unlink(missing_ok=True)
        return self._run


class KeepEpochs(Checkpoint):
    """Saves every epoch as ``last.ckpt``, and the best one as ``best.ckpt`` if it is to be kept.

    Args:
        folder: folder of the run.
        best: figure by which the best epoch is chosen; None to keep only the last.
    """

    def __init__(self, folder: Path, best: Monitor | None) -> None:
        super().__init__()
        self._folder = folder
        self._best = best

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        """Saves the epoch; all processes call it, only the first one writes."""
        trainer.save_checkpoint(self._folder / LAST)
        assert isinstance(module, ClassifierModule)
        if self._best is None:
            return
        reached = [self._best.better(epoch) for epoch in module.history]
        if reached[-1] > max(reached[:-1], default=-math.inf):
            trainer.save_checkpoint(self._folder / BEST)


class WholeFileIO(TorchCheckpointIO):
    """Writes checkpoints atomically, by rename."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Writes ``checkpoint``; after an OSError an earlier file is unchanged."""
        with whole_file(Path(path)) as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())


def make_plan(
    model: str, data: ImageData, recipe_name: str, recipe: Recipe, own_sha256: str | None = None
) -> dict[str, Any]:
    """Returns what determines a run's result, except the images' contents, as plain values.

    ``own_sha256`` is the digest of the weights that quantization-aware fine-tuning starts from.
    """
    teacher = checkpoint_path(Path(recipe.teacher or ""))  # by digest, as the file may change
    return {
        "model": model,
        "data": data.name,
        "labels": list(data.labels),
        "images": sum(map(len, data.parts.values())),
        "teacher_sha256": sha256(teacher) if recipe.teacher and teacher.is_file() else None,
        **({"qat_sha256": own_sha256} if own_sha256 else {}),
        "recipe_name": recipe_name,
        "recipe": asdict(recipe),
    }


def read_plan(folder: Path) -> dict[str, Any]:
    """Returns the plan of the run in ``folder``; raises UserError if it is damaged."""
    file = folder / RUN_PLAN
    try:
        plan = json.loads(file.read_bytes())
    except ValueError as error:
        raise _damaged(file, f"no JSON: {first_line(error)}") from error
    if not isinstance(plan, dict):
        raise _damaged(file, "not an object")
    for name, kind in _KINDS.items():
        if not isinstance(plan.get(name), kind):
            raise _damaged(file, f"{name} is {plan.get(name)!r}")
    if not all(isinstance(label, str) for label in plan["labels"]):
        raise _damaged(file, f"labels are {plan['labels']}")
    try:
        recipe = Recipe(**plan["recipe"])
    except TypeError as error:
        raise _damaged(file, first_line(error)) from error
    # Fields that the version which wrote the plan did not have are at their defaults.
    return plan | {"recipe": asdict(recipe)}


def check_same(folder: Path, plan: dict[str, Any], images: bytes) -> None:
    """Raises UserError if the run in ``folder`` has another plan or other images.

    Args:
        folder: folder of an unfinished or a finished run.
        plan: from :func:`make_plan`.
        images: from :func:`training.identity.image_list`.
    """
    saved = {"images": None, **_flat(read_plan(folder))}  # not stored by earlier versions
    list_file = folder / IMAGE_LIST
    if not list_file.exists():
        raise UserError(
            f"{folder} does not say which images it was started with, as an earlier "
            "version wrote it; --fresh starts anew"
        )
    asked = _flat(json.loads(json.dumps(plan)))
    differing = [
        f"{key} was {saved.get(key)!r}, is {asked.get(key)!r}"
        for key in sorted(saved.keys() | asked.keys())
        if saved.get(key) != asked.get(key) and key not in ("labels", "images")
    ]
    if saved["labels"] != asked["labels"]:
        differing.append(_relabelled(saved["labels"], asked["labels"]))
    else:
        try:
            differing += changes(list_file.read_bytes(), images, count=saved["images"])
        except ValueError as error:
            raise _damaged(list_file, first_line(error)) from error
    if differing:
        raise UserError(
            f"{folder} cannot be resumed as something else: {'; '.join(differing)}; "
            "go back to what it was, or --fresh starts anew"
        )


def _damaged(file: Path, why: str) -> UserError:
    return UserError(f"{file} is damaged ({why}): it cannot be resumed; --fresh starts anew")


def _relabelled(before: Sequence[str], now: Sequence[str]) -> str:
    """Returns a text: which labels changed; all if there are few, else the first that differ."""
    if max(len(before), len(now)) <= NAMED:
        return f"labels were {', '.join(before)}, are {', '.join(now)}"
    at = next(index for index in count() if before[index : index + 1] != now[index : index + 1])
    were, are = (some(labels[at:]) or "none" for labels in (before, now))
    return f"labels from number {at} on were {were}, are {are}"


def _flat(plan: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in plan.items() if key != "recipe"}
    return rest | {f"recipe.{key}": value for key, value in plan["recipe"].items()}
