"""One training run, from data to checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np
import torch

from core import cli
from core.errors import UserError, storage_error
from core.files import write_whole
from core.machine import this_machine
from core.names import canonical_name
from core.preprocess import ImageError
from models.classifier import Classifier
from models.input_size import check_input_size
from training.accelerators import Accelerators, is_first_process
from training.checkpoint import (
    Checkpoint,
    checkpoint_path,
    facts_of_data,
    load_checkpoint,
    read_checkpoint,
    run_folder,
)
from training.data import ImageData, Sample, labels_of, open_image
from training.identity import image_list, part_digests
from training.loader import Loaders, Report, plain_batches, read
from training.look import look
from training.module import ClassifierModule
from training.networks import first_network
from training.options import FolderOptions
from training.recipe import Recipe
from training.records import RunFacts, to_csv
from training.run import PartialRun, make_plan
from training.summary.augmentation import AUGMENTATION, augmentation_png
from training.summary.calibration import Calibration, calibration_error
from training.summary.mistakes import SHOWN, Mistake, names_of, worst_mistakes
from training.summary.readme import doubts
from training.summary.write import write_summary
from training.temperature import Outputs, calibrate, without
from training.trainer import device_name, make_trainer, quiet

LIBRARIES = ("torch", "torchvision", "pytorch-lightning")  # whose versions a run records


def fit(
    model: str,
    data: ImageData,
    recipe: Recipe,
    *,
    recipe_name: str = "custom",
    command: str = "# called from Python: training.fit.fit",
    machine: Accelerators | None = None,
    resume: bool = False,
    fresh: bool = True,
    options: FolderOptions | None = None,
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

    Raises:
        UserError: an unknown network or one that does not accept the image size, an image that
            cannot be read, too few images for a batch, an earlier run in the same place, a run
            that cannot be resumed, or not enough memory or disk space.
    """
    recipe.check()
    options = options or FolderOptions()
    data = look(data, options)
    check_input_size(
        model,
        *sorted({recipe.crop, *recipe.train_crops}),
        classes=len(data.labels),
        batch=max(1, recipe.batch_size // recipe.accumulate),
    )
    if len(data.train) < recipe.batch_size:
        raise UserError(
            f"batch_size is {recipe.batch_size}, more than the {len(data.train)} training images "
            f"of {data.name}; try --recipe.batch-size {len(data.train) // 2 or 1}"
        )
    model = canonical_name(model)
    partial = PartialRun(run_folder(model, data.name))
    plan = make_plan(model, data, recipe_name, recipe)
    digests = part_digests(data)
    images = image_list(data, digests)
    with partial.alone() if is_first_process() else nullcontext():
        if resume:
            partial.check_same(plan, images)
        elif is_first_process():
            if not fresh:
                partial.check_free()
            partial.start(plan, images)
        last = str(partial.last) if resume and partial.last.exists() else None
        if last:
            read_checkpoint(partial.last)  # raises our own error for a damaged one
        with quiet(), _one_line(recipe, partial):
            torch.manual_seed(recipe.seed)
            skipped = _Skipped() if options.skip_unreadable else None
            network, origin = first_network(model, data.labels, recipe)
            module = ClassifierModule(
                network,
                {"model": model, "data": data.name, **facts_of_data(digests["train"], options)},
                data.labels,
                recipe,
                images=np.bincount(labels_of(data.train), minlength=len(data.labels)).tolist(),
                report=skipped,
            )
            if is_first_process() and not resume:
                picture = partial.folder / AUGMENTATION
                write_whole(picture, augmentation_png(data, recipe))
                cli.notes().print(f"{picture} shows what augmentation does", soft_wrap=True)
            trainer = make_trainer(
                model, recipe, machine or Accelerators(), partial, held_out=len(data.val)
            )
            trainer.fit(module, datamodule=Loaders(data, recipe), ckpt_path=last, weights_only=True)
            if not trainer.is_global_zero:
                return checkpoint_path(run_folder(model, data.name))
            checkpoint = load_checkpoint(partial.save_final())
            kept = checkpoint.network().to(trainer.strategy.root_device)
            further: dict[str, float] = {}
            tested = evaluate(kept, data.test, recipe, report=skipped) if data.test else None
            if tested:
                further |= {"test_top1": tested.answers.top1, "test_images": tested.answers.images}
            calibration = None
            held_out = evaluate(kept, data.val, recipe, report=skipped)
            if recipe.calibrate:
                calibration = _calibrated(checkpoint, held_out, tested)
                further["calibration_error"] = calibration_error(calibration.after)
            temperature = calibration.temperature if calibration else 1.0
            if further:
                partial.save_final(further, temperature=temperature)
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
                tested=tested.answers if tested else None,
                calibration=calibration,
                mistakes=_mistakes(held_out.divided(temperature), data, recipe),
                kept_epoch=len(checkpoint.history),
                chosen_by=recipe.chosen_by,
                parameters=sum(parameter.numel() for parameter in network.parameters()),
                device=device_name(trainer),
                precision=str(trainer.precision),
                versions=this_machine(LIBRARIES).versions,
                date=date.today().isoformat(),
                seconds=sum(epoch.seconds for epoch in module.history),
                images_per_second=median(epoch.images_per_second for epoch in module.history),
                weights_top1=module.weights_top1,
            )
            for doubt in doubts(facts, module.history, checkpoint.confusion.numpy()):
                cli.notes().print(f"warning: {doubt}", soft_wrap=True)
            write_summary(partial.folder, facts, module.history, checkpoint.confusion.numpy())
            write_whole(partial.folder / "metrics.csv", to_csv(module.history))
            if skipped and skipped.paths:
                names = "".join(f"{path}\n" for path in sorted(skipped.paths))
                content = names.encode(errors="surrogateescape")  # a name need not be UTF-8
                write_whole(partial.folder / "unreadable.txt", content)
            return checkpoint_path(partial.finish())


@torch.inference_mode()
def evaluate(
    network: Classifier, samples: Sequence[Sample], recipe: Recipe, *, report: Report | None = None
) -> Outputs:
    """Returns what a network in evaluation mode answers to ``samples``.

    Args:
        network: the network, on the device to use.
        samples: labelled images.
        recipe: provides preprocessing and batch size.
        report: called with the exception of each image that cannot be read; None raises it.

    Raises:
        UserError: no image can be read.
    """
    device = next(network.parameters()).device
    batches = [
        (network(batch.pixels.to(device)).cpu().numpy(), batch.labels.numpy())
        for batch in plain_batches(samples, recipe)
        if len(read(batch, report).labels)
    ]
    if not batches:
        raise UserError("no image of the part to test on can be read")
    logits, labels = map(np.concatenate, zip(*batches, strict=True))
    return Outputs(logits, labels)


@torch.inference_mode()
def _calibrated(checkpoint: Checkpoint, held_out: Outputs, tested: Outputs | None) -> Calibration:
    """Returns :func:`calibrate`'s result, if the network's last layer can be divided by it."""
    calibration = calibrate(held_out, tested)
    shape = (2, *checkpoint.preprocess.shape)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    plain = checkpoint.network()(pixels)
    divided = replace(checkpoint, temperature=calibration.temperature).network()(pixels)
    if torch.allclose(divided * calibration.temperature, plain, rtol=1e-3, atol=1e-3):
        return calibration
    reason = f"the last layer of {checkpoint.model} does not scale its logits"
    return without(tested or held_out, reason, len(held_out.labels), tested is not None)


def _mistakes(outputs: Outputs, data: ImageData, recipe: Recipe) -> tuple[Mistake, ...]:
    """Returns the worst mistakes among the held-out images that could be read."""
    named = list(zip(data.val, names_of(data.val, data.folder), strict=True))
    if len(outputs.labels) < len(named):
        named = [(sample, name) for sample, name in named if _can_be_read(sample, recipe)]
    samples, names = zip(*named, strict=True)
    answers, scores = outputs.logits.argmax(axis=1), outputs.best_scores()
    return worst_mistakes(samples, names, answers, scores, data.labels, SHOWN)


def _can_be_read(sample: Sample, recipe: Recipe) -> bool:
    try:
        open_image(sample[0], recipe.truncated)
    except ImageError:
        return False
    return True


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
            f"{recipe.train_crop or recipe.crop} px: try --recipe.accumulate "
            f"{2 * recipe.accumulate} (the same steps, half the memory), --recipe.batch-size "
            f"{max(1, recipe.batch_size // 2)} or --recipe.precision bf16"
        ) from None


def _kept(partial: PartialRun) -> str:
    """Returns a text: how many epochs of a stopped run were kept, and how to resume it."""
    if not partial.last.exists():
        return "no epoch was whole yet, so nothing was kept"
    return f"{partial.folder} keeps the last whole epoch: --resume goes on from there"
