"""One training run, from data to checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from core import cli
from core.errors import UserError, storage_error
from core.files import write_whole
from core.machine import this_machine
from core.names import canonical_name
from core.preprocess import ImageError
from models.cost import count_parameters
from training.accelerators import Accelerators, is_first_process
from training.checkpoint import (
    checkpoint_path,
    facts_of_data,
    load_checkpoint,
    read_checkpoint,
    run_folder,
)
from training.data import ImageData
from training.final import measure
from training.identity import image_list, part_digests
from training.loader import Loaders, smaller_batch
from training.loggers import check_loggers, finish_loggers, make_loggers
from training.look import look
from training.module import ClassifierModule, facts_of_classes
from training.networks import first_network
from training.options import FolderOptions, LoggerName
from training.qat.start import (
    check_same_images,
    float_self,
    quantized_network,
    with_own_labels,
)
from training.recipe import CUSTOM, Recipe
from training.records import RunFacts, to_csv
from training.run import PartialRun, make_plan
from training.summary.augmentation import AUGMENTATION, augmentation_png
from training.summary.readme import doubts
from training.summary.write import write_summary
from training.trainer import device_name, make_trainer, quiet
from training.trial import check_trial

LIBRARIES = ("torch", "torchvision", "pytorch-lightning")  # whose versions a run records


def fit(
    model: str,
    data: ImageData,
    recipe: Recipe,
    *,
    recipe_name: str = CUSTOM,
    command: str = "# called from Python: training.fit.fit",
    machine: Accelerators | None = None,
    resume: bool = False,
    fresh: bool = True,
    options: FolderOptions | None = None,
    log: Sequence[LoggerName] = ("tensorboard",),
) -> Path:
    """Trains a network and returns the path of the checkpoint in ``runs/<model>-<data>/``.

    During training the run is in ``runs/<model>-<data>.partial/``, saved after every epoch. The
    first Ctrl-C stops it when the epoch is complete, a second one at once.

    Args:
        model: registry name.
        data: the data set.
        recipe: the recipe.
        recipe_name: name of the recipe, for the records.
        command: command line that repeats the run, for its README.
        machine: devices to train on; None for the GPUs of this host, or its CPU.
        resume: resume the unfinished run of the same network, data and recipe.
        fresh: discard an unfinished run, and in the end replace a finished one, instead of refusing
            to start.
        options: how the data was read, and whether to leave out images that cannot be decoded.
        log: where the figures of steps and epochs go, besides the run's own files.

    Raises:
        UserError: an unknown network or one that does not accept the image size, an image that
            cannot be read, too few images for a batch, an earlier run in the same place, a run
            that cannot be resumed, or not enough memory or disk space.
    """
    recipe.check()
    recipe = recipe.for_task(data.task)
    check_loggers(log)
    options = options or FolderOptions()
    data = look(data, options)
    model = canonical_name(model)
    own = None
    if recipe.qat:
        own = float_self(model, data.name, recipe)
        check_same_images(own, recipe)
        data = with_own_labels(data, own, recipe)
    check_trial(model, data, recipe, machine=machine)
    partial = PartialRun(run_folder(model, data.name))
    plan = make_plan(model, data, recipe_name, recipe, own.sha256 if own else None)
    digests = part_digests(data)
    images = image_list(data, digests)
    with partial.alone() if is_first_process() else nullcontext():
        if resume:
            partial.check_same(plan, images)
        elif is_first_process():
            if not fresh:
                partial.check_free()
            partial.start(plan, images)
        last = partial.last if resume and partial.last.exists() else None
        if last:
            read_checkpoint(last)  # raises our own error for a damaged one
        with quiet(), _one_line(recipe, partial):
            torch.manual_seed(recipe.seed)
            skipped = _Skipped() if options.skip_unreadable else None
            facts_of_run: dict[str, Any] = {"model": model, "data": data.name, "task": data.task}
            facts_of_run["recipe_name"] = recipe_name
            facts_of_run |= facts_of_data(digests["train"], options)
            network: nn.Module
            if own is None:
                network, origin = first_network(model, data.labels, recipe)
            else:
                network, origin = quantized_network(own, data, recipe, last), own.origin
                facts_of_run["qat"] = {"sha256": own.sha256, "weight_bits": recipe.weight_bits}
            module = ClassifierModule(
                network,
                facts_of_run,
                data.labels,
                recipe,
                report=skipped,
                **facts_of_classes(data),
                own=own.module if own else None,
            )
            if is_first_process() and not resume:
                picture = partial.folder / AUGMENTATION
                write_whole(picture, augmentation_png(data, recipe))
                cli.notes().print(f"{picture} shows what augmentation does", soft_wrap=True)
            loggers = make_loggers(log, partial.folder, model=model, data=data.name, recipe=recipe)
            trainer = make_trainer(
                model, recipe, machine or Accelerators(), partial, loggers, held_out=len(data.val)
            )
            trainer.fit(
                module,
                datamodule=Loaders(data, recipe),
                ckpt_path=str(last) if last else None,
                weights_only=True,
            )
            finish_loggers(loggers)
            if not trainer.is_global_zero:
                return checkpoint_path(run_folder(model, data.name))
            checkpoint = load_checkpoint(partial.save_final())
            kept = checkpoint.network().to(trainer.strategy.root_device)
            final = measure(checkpoint, kept, data, recipe, report=skipped)
            partial.save_final(final.metrics, answers=final.answers)
            facts = RunFacts(
                model=model,
                data=data.name,
                labels=data.labels,
                recipe_name=recipe_name,
                recipe=asdict(recipe),
                command=command,
                data_path=data.folder,
                origin=origin,
                train_images=len(data.train),
                val_images=int(checkpoint.metrics["images"]),
                tested=final.tested,
                calibration=final.calibration,
                abstaining=final.abstaining,
                several=final.several,
                mistakes=final.mistakes,
                kept_epoch=len(checkpoint.history),
                chosen_by=recipe.chosen_by,
                parameters=count_parameters(own.module if own else network),
                device=device_name(trainer),
                precision=str(trainer.precision),
                versions=this_machine(LIBRARIES).versions,
                date=date.today().isoformat(),
                seconds=sum(epoch.seconds for epoch in module.history),
                images_per_second=median(epoch.images_per_second for epoch in module.history),
                weights_top1=module.weights_top1,
            )
            confusion = checkpoint.confusion.numpy()
            for doubt in () if final.several else doubts(facts, module.history, confusion):
                cli.notes().print(f"warning: {doubt}", soft_wrap=True)
            write_summary(partial.folder, facts, module.history, confusion)
            write_whole(partial.folder / "metrics.csv", to_csv(module.history))
            if skipped and skipped.paths:
                names = "".join(f"{path}\n" for path in sorted(skipped.paths))
                content = names.encode(errors="surrogateescape")  # a name need not be UTF-8
                write_whole(partial.folder / "unreadable.txt", content)
            return checkpoint_path(partial.finish())


class _Skipped:
    """Reports each image that cannot be read, once."""

    def __init__(self) -> None:
        self.paths: set[str] = set()
        self._notes = cli.notes()

    def __call__(self, error: ImageError) -> None:
        if (text := str(error)) not in self.paths:
            self.paths.add(text)
            self._notes.print(f"left out: {text}", soft_wrap=True)


@contextmanager
def _one_line(recipe: Recipe, partial: PartialRun) -> Iterator[None]:
    """Turns an exception that stops a run into one line; only complete epochs are kept."""
    try:
        with ExitStack() as failed:
            failed.callback(partial.drop_if_empty)
            yield
            failed.pop_all()
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning turns an interruption into an exit with status 1.
        stop = error.__context__ if isinstance(error, SystemExit) else error
        if not isinstance(stop, KeyboardInterrupt):
            raise
        raise type(stop)(_kept(partial)) from None
    except Exception as error:
        if (reason := storage_error(error)) is not None:
            raise UserError(f"{reason}; {_kept(partial)}") from None
        memory = isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not memory:
            raise
        raise UserError(
            f"out of memory at batch_size {recipe.batch_size}, accumulate {recipe.accumulate}, "
            f"{recipe.train_crop or recipe.crop} px: try {' or '.join(_less_memory(recipe))}"
        ) from None


def _less_memory(recipe: Recipe) -> Iterator[str]:
    """Yields the flags with which a run needs less memory."""
    parts = 2 * recipe.accumulate
    if recipe.batch_size % parts == 0 and recipe.batch_size >= 2 * parts:
        yield f"--recipe.accumulate {parts} (the same steps, half the memory)"
    smaller = smaller_batch(recipe.batch_size, recipe.accumulate)
    if smaller and smaller < recipe.batch_size:
        yield f"--recipe.batch-size {smaller}"
    yield "--recipe.precision bf16"


def _kept(partial: PartialRun) -> str:
    """Returns a text: how many epochs of a stopped run were kept, and how to resume it."""
    if not partial.last.exists():
        return "no epoch was whole yet, so nothing was kept"
    return f"{partial.folder} keeps the last whole epoch: --resume goes on from there"
