"""Runs that are cut off, and runs on several processes."""

from __future__ import annotations

import csv
import dataclasses
import errno
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from few_digits import few_digits, write_images

from core import cli
from core.errors import UserError
from training.__main__ import main
from training.checkpoint import checkpoint_path, load_checkpoint, run_folder
from training.data import ImageData
from training.datasets import load_data
from training.fit import fit
from training.identity import digests_of, image_list
from training.module import ClassifierModule
from training.networks import first_network
from training.recipe import Recipe
from training.run import PartialRun, WholeFileIO, make_plan

RUN = run_folder("resnet14", "written")
PARTIAL = PartialRun(RUN)
# All that could make a resumed run differ: momentum, a schedule, an average, mixing, augmentation.
FLAGS = shlex.split(
    "--model resnet14 --recipe-name small --recipe.epochs 3 --recipe.batch-size 32 "
    "--recipe.crop 8 --recipe.resize 8 --recipe.pad 1 --recipe.mixup 0.2 --recipe.cutmix 1.0 "
    "--recipe.ema 0.9 --recipe.optimizer sgd --recipe.learning-rate 0.05 --recipe.workers 0"
)

# Small steps of one thread keep differences of rounding small; two epochs are enough of them.
GENTLE = shlex.split(
    "--recipe.epochs 2 --recipe.ema None --recipe.mixup 0 --recipe.cutmix 0 "
    "--recipe.learning-rate 0.01 --machine.accelerator cpu"
)


def few() -> ImageData:
    return few_digits("written", train=330, val=79)


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Returns :data:`FLAGS`, and those that name a folder with the images of :func:`few`."""
    folder = write_images(few(), tmp_path_factory.mktemp("data"))
    return [*FLAGS, "--data", str(folder)]


@pytest.fixture
def without_summary() -> Iterator[None]:
    """Leaves out the README of a run and its pictures, which take longer than one so short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.fit.write_summary", lambda *_: None)
        yield


def curve(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def train_until_killed(flags: list[str]) -> None:
    """Trains as the command does, in a process that is killed in its second epoch."""
    step = ClassifierModule.training_step

    def killed(module: ClassifierModule, batch: Any, index: int) -> torch.Tensor:
        if (module.current_epoch, index) == (1, 5):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(module, batch, index)

    ClassifierModule.training_step = killed  # type: ignore[method-assign]
    sys.argv = ["training", *flags]
    cli.run(main)


@pytest.mark.usefixtures("without_summary")
def test_a_killed_run_resumes_to_the_same_weights(
    here: Path, command: Callable[..., subprocess.CompletedProcess[str]], flags: list[str]
) -> None:
    assert command("training", *flags).returncode == 0
    never_killed = RUN.rename("never_killed")
    # Forked, as importing torch takes a new process seconds.
    training = get_context("fork").Process(target=train_until_killed, args=(flags,))
    training.start()
    training.join(300)
    assert training.exitcode == -signal.SIGKILL
    assert not RUN.exists()
    saved = torch.load(PARTIAL.last, weights_only=True)
    assert saved["epoch"] < 2

    refused = command("training", *flags)
    assert refused.returncode == 1
    assert "--resume" in refused.stderr
    assert "--fresh" in refused.stderr
    other = command("training", *flags, "--resume", "--recipe.momentum", "0.5")
    assert other.returncode != 0
    other = command("training", *flags, "--resume", "--recipe.seed", "1")
    assert re.search(r"recipe\.seed .*\b0\b.*\b1\b", other.stderr)
    assert PARTIAL.last.exists()

    assert command("training", *flags, "--resume").returncode == 0
    assert not PARTIAL.folder.exists()
    resumed, whole = (load_checkpoint(checkpoint_path(run)) for run in (RUN, never_killed))
    assert resumed.state_dict.keys() == whole.state_dict.keys()
    for key, tensor in whole.state_dict.items():
        assert torch.equal(resumed.state_dict[key], tensor), key
    for mine, theirs in zip(curve(RUN), curve(never_killed), strict=True):
        for name in ("epoch", "loss", "train_top1", "val_loss", "val_top1", "learning_rate"):
            assert mine[name] == theirs[name], name


@pytest.mark.usefixtures("without_summary")
@pytest.mark.parametrize(
    ("starter", "flags"),
    [
        pytest.param(("training",), ("--machine.devices", "2"), id="ours"),
        pytest.param(  # as on several hosts
            shlex.split("torch.distributed.run --standalone --nproc-per-node 2 -m training"),
            (),
            id="torchrun",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_processes_learn_as_one_does(
    here: Path,
    command: Callable[..., subprocess.CompletedProcess[str]],
    starter: list[str],
    flags: tuple[str, ...],
) -> None:
    # Of fewer images, the losses of the held-out ones do not agree as well.
    folder = write_images(few_digits("written", train=330, val=359), here / "data")
    run, line = RUN, [*FLAGS, *GENTLE, "--data", str(folder)]
    # One process takes the parts of two in turn, for batch norm.
    assert command("training", *line, "--recipe.accumulate", "2").returncode == 0
    one_process = curve(run.rename("one_process"))
    started = [sys.executable, "-m", *starter, *line, *flags]
    ran = subprocess.run(started, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("330 images") == 1  # the other process is silent
    for mine, theirs in zip(curve(run), one_process, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
        assert mine["val_loss"] == pytest.approx(theirs["val_loss"], rel=1e-3)
        assert mine["learning_rate"] == theirs["learning_rate"]
    assert load_checkpoint(checkpoint_path(run)).metrics["images"] == 359


def tiny(**fields: Any) -> Recipe:
    options = {
        "batch_size": 64,
        "resize": 8,
        "crop": 8,
        "min_scale": 1.0,
        "flip": False,
        **fields,
    }
    return Recipe(epochs=2, learning_rate=1e-3, **options)


class Refusing:
    """A file that takes 10,000 bytes."""

    def __init__(self, file: Any, error: int) -> None:
        self._file, self._error, self._written = file, error, 0

    def write(self, content: bytes) -> int:
        self._written += len(content)
        if self._written > 10_000:
            raise OSError(self._error, os.strerror(self._error))
        return int(self._file.write(content))


@pytest.mark.usefixtures("without_summary")
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_what_a_disk_refuses_leaves_the_last_whole_epoch(
    here: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    save = torch.save  # which makes an error of its own of what the file raises
    written = []

    def refused(content: object, file: Any) -> None:
        save(content, Refusing(file, error) if written else file)
        written.append(content)

    monkeypatch.setattr(torch, "save", refused)
    with pytest.raises(UserError, match=f"{os.strerror(error)}; .* keeps .* --resume") as refusal:
        fit("resnet14", few(), tiny(batch_size=165))
    assert "\n" not in str(refusal.value)
    assert torch.load(PARTIAL.last, weights_only=True)["epoch"] == 0
    assert not list(here.rglob("*.tmp"))
    monkeypatch.undo()
    monkeypatch.chdir(here)
    fit("resnet14", few(), tiny(batch_size=165), resume=True)
    assert [epoch.epoch for epoch in load_checkpoint(checkpoint_path(RUN)).history] == [1, 2]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_stopped_run_ends_non_zero_and_says_how_to_go_on(
    here: Path,
    command: Callable[..., subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    status: int,
    flags: list[str],
    epoch: int,
) -> None:
    step = ClassifierModule.training_step

    def stopped(module: ClassifierModule, batch: Any, index: int) -> torch.Tensor:
        if module.current_epoch == epoch:
            for _ in range(2):  # Ctrl-C twice
                os.kill(os.getpid(), number)
        return step(module, batch, index)

    monkeypatch.setattr(ClassifierModule, "training_step", stopped)
    ran = command("training", *flags, "--recipe.batch-size", "165")
    assert ran.returncode == status
    assert ran.stdout == ""
    line = ran.stderr.strip().splitlines()[-1]
    assert line.startswith("stopped: ")
    assert ("--resume" in line) == (epoch == 1)
    assert "Traceback" not in ran.stderr
    assert PARTIAL.last.exists() == PARTIAL.folder.exists() == (epoch == 1)


@pytest.mark.usefixtures("without_summary")
@pytest.mark.parametrize("epoch", [0, 2])
def test_one_interruption_saves_the_epoch_first(
    here: Path,
    command: Callable[..., subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    epoch: int,
) -> None:
    step = ClassifierModule.training_step

    def interrupted(module: ClassifierModule, batch: Any, index: int) -> torch.Tensor:
        if (module.current_epoch, index) == (epoch, 0):
            os.kill(os.getpid(), signal.SIGINT)
        return step(module, batch, index)

    monkeypatch.setattr(ClassifierModule, "training_step", interrupted)
    line = [*flags, "--recipe.batch-size", "165"]
    ran = command("training", *line)
    assert ran.returncode == 130
    assert f"epoch {epoch + 1} of 3" in ran.stderr
    assert "Ctrl-C again" in ran.stderr
    assert "--resume" in ran.stderr.splitlines()[-1]
    assert torch.load(PARTIAL.last, weights_only=True)["epoch"] == epoch
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.setattr(ClassifierModule, "training_step", step)
    assert command("training", *line, "--resume").returncode == 0
    assert [each.epoch for each in load_checkpoint(checkpoint_path(RUN)).history] == [1, 2, 3]


@pytest.mark.usefixtures("without_summary")
def test_a_finished_run_is_replaced_only_if_asked(
    here: Path, command: Callable[..., subprocess.CompletedProcess[str]], flags: list[str]
) -> None:
    short = [*flags, "--recipe.epochs", "1", "--recipe.batch-size", "165"]
    assert command("training", *short).returncode == 0
    before = checkpoint_path(RUN).read_bytes()
    refused = command("training", *short, "--recipe.seed", "1")
    assert refused.returncode == 1
    assert re.search(rf"{RUN} .*--fresh", refused.stderr)
    assert "--fresh" in command("training", *short, "--resume").stderr
    assert checkpoint_path(RUN).read_bytes() == before
    assert [path.name for path in RUN.parent.iterdir()] == [RUN.name]
    assert command("training", *short, "--recipe.seed", "1", "--fresh").returncode == 0
    assert load_checkpoint(checkpoint_path(RUN)).recipe["seed"] == 1


def test_two_processes_do_not_train_in_one_folder(here: Path) -> None:
    with PARTIAL.alone():
        start(few(), tiny())
        with pytest.raises(UserError, match=rf"{PARTIAL.folder}: another process") as refusal:
            fit("resnet14", few(), tiny())
        assert "\n" not in str(refusal.value)
        PARTIAL.check_same(*made_of(few(), tiny()))
    with PARTIAL.alone():  # it is free again
        pass


def test_no_memory_is_one_line(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def starved(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("training.module.ClassifierModule.training_step", starved)
    with pytest.raises(UserError, match=r"memory .*batch_size 64.*--recipe.accumulate 2"):
        fit("resnet14", few(), tiny())


def made_of(data: ImageData, recipe: Recipe) -> tuple[dict[str, Any], bytes]:
    digests = {part: digests_of(samples, data.digests) for part, samples in data.parts.items()}
    return make_plan("resnet14", data, "custom", recipe), image_list(data, digests)


def start(data: ImageData, recipe: Recipe) -> PartialRun:
    """Returns an unfinished run on ``data``, as it stands before its first epoch."""
    partial = PartialRun(run_folder("resnet14", data.name))
    partial.start(*made_of(data, recipe))
    return partial


def test_a_run_is_not_resumed_and_dropped_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import training.__main__ as train

    flags = ("--model", "resnet14", "--data", "digits", "--resume", "--fresh")
    monkeypatch.setattr("sys.argv", ["training", *flags])
    with pytest.raises(UserError, match=r"^--resume and --fresh: .* leave one out$"):
        train._parse()


def test_a_damaged_checkpoint_is_not_resumed(here: Path) -> None:
    recipe, data = tiny(), few()
    start(data, recipe).last.write_bytes(b"half of a file")
    with pytest.raises(UserError, match=r"last\.ckpt: "):
        fit("resnet14", data, recipe, resume=True)


def test_a_run_is_resumed_with_the_same_images_only(
    here: Path, folder: Path, make_images: Callable[..., list[Path]]
) -> None:
    recipe = dataclasses.replace(tiny(), batch_size=4)
    partial = start(load_data(str(folder)), recipe)

    def resume(reason: str) -> None:
        with pytest.raises(UserError, match=reason) as caught:
            fit("resnet14", load_data(str(folder)), recipe, resume=True)
        assert len(str(caught.value)) < 500

    (folder / "cat").rename(folder / "zebra")  # as many classes, and as many images of each
    resume(r"labels .*cat, dog, .*dog, zebra.*--fresh")
    (folder / "zebra").rename(folder / "cat")
    (folder / "cat" / "0.png").rename(folder / "cat" / "another.png")
    partial.check_same(*made_of(load_data(str(folder)), recipe))
    moved, kept = folder / "cat" / "3.png", folder / "dog" / "4.png"
    kept.write_bytes(moved.read_bytes() + b" ")  # another image, as many of them
    resume(r": images of (train|val): \d")
    shutil.rmtree(folder / "cat")
    make_images(folder / "cat", 10)
    resume(r"\btrain: \d .*\d .*\bval: \d")
    (partial.folder / "images.csv").unlink()
    resume(r"resnet14-pets.* --fresh")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("run.json", b'{"model": "resn', r"JSON"),
        ("run.json", b"", r"JSON"),
        ("run.json", b"\xff\xfe\xfd", r"JSON"),
        ("run.json", b"[1]", r"object"),
        ("run.json", b"{}", r"model is None"),
        ("run.json", b'{"model": "a", "data": "b", "labels": 3}', r"labels is 3"),
        (
            "run.json",
            b'{"model": "", "data": "", "labels": [], "recipe_name": "", "recipe": {"eras": 1}}',
            r"Recipe.* 'eras'",
        ),
        ("images.csv", b"", r"cut off"),
        ("images.csv", b"a,b\n1,2\n", r" a, b, .*part, label, digest, file"),
        ("images.csv", b"part,label,digest,file\ntrain,0,ab", r"cut off"),
        ("images.csv", b"part,label,digest,file\ntrain,0,ab,\n", r"\b1 images\b.*\b409\b"),
        ("images.csv", b"part,label,digest,file\ntrain,0\n", r"line 2 .*\b2 columns"),
        ("images.csv", b'part,label,digest,file\ntrain,0,ab,"c\n', r"line 2: "),
    ],
)
def test_a_damaged_unfinished_run_is_named(
    here: Path, name: str, content: bytes, reason: str
) -> None:
    data, recipe = few(), tiny()
    partial = start(data, recipe)
    (partial.folder / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} .*\(.*{reason}.*--fresh") as caught:
        partial.check_same(*made_of(data, recipe))
    assert "\n" not in str(caught.value)


def test_another_teacher_in_the_same_place_is_another_run(here: Path) -> None:
    data, recipe = few(), tiny(teacher="runs/teacher")
    (here / "runs" / "teacher").mkdir(parents=True)
    checkpoint_path(Path("runs/teacher")).write_bytes(b"one")
    partial = start(data, recipe)
    partial.check_same(*made_of(data, recipe))
    checkpoint_path(Path("runs/teacher")).write_bytes(b"another")
    with pytest.raises(UserError, match=r"teacher_sha256 .*'7692c3ad3540"):
        partial.check_same(*made_of(data, recipe))


def test_of_many_labels_those_that_changed_are_named(here: Path) -> None:
    data, recipe = few(), tiny()
    partial = start(data, recipe)
    other = dataclasses.replace(data, labels=(*"0123456", "8", "7", "9"))
    with pytest.raises(UserError, match=r"labels .*\b7 .*\b7, 8, 9, .*\b8, 7, 9"):
        partial.check_same(*made_of(other, recipe))


def test_a_loss_that_is_no_number_ends_the_run(here: Path) -> None:
    recipe = Recipe(
        epochs=2, batch_size=64, learning_rate=1e30, optimizer="sgd", warmup=0.0, resize=8, crop=8
    )
    with pytest.raises(UserError, match=r"epoch 1 .*\bnan\b.*learning_rate 1e\+30"):
        fit("resnet14", few(), recipe)


@pytest.mark.usefixtures("without_summary")
def test_early_stop_keeps_the_best_epoch(here: Path) -> None:
    recipe = Recipe(
        epochs=30, batch_size=64, learning_rate=0.1, optimizer="sgd", schedule="constant",
        resize=8, crop=8, min_scale=1.0, flip=False, patience=1,
    )  # fmt: skip
    checkpoint = load_checkpoint(fit("resnet14", few(), recipe))
    reached = [row["val_top1"] for row in curve(RUN)]
    assert len(reached) < 30
    assert checkpoint.metrics["top1"] == max(reached) > reached[-1]


@pytest.mark.parametrize(
    "fields",
    [
        {"precision": "bf16", "channels_last": False},
        {"clip": 0.1, "optimizer": "adam", "accumulate": 2, "deterministic": True},
        {"stages": 2, "crop": 16, "resize": 16, "start_train_crop": 8, "dropout": 0.2},
        pytest.param({"compile": True}, marks=pytest.mark.slow),
    ],
)
def test_other_ways_to_train_learn_too(here: Path, fields: dict[str, Any]) -> None:
    path = fit("resnet14", few(), tiny(warmup=0.0, batch_size=16, **fields))
    checkpoint = load_checkpoint(path)
    assert checkpoint.metrics["top1"] > 0.3  # guessing gets 0.1
    assert checkpoint.state_dict["backbone.head.weight"].dtype == torch.float32
    shown = (path.parent / "README.md").read_text()
    assert ("bf16-mixed" if "precision" in fields else "32-true") in shown


@pytest.mark.usefixtures("without_summary")
def test_clipping_bounds_a_step(here: Path) -> None:
    def moved(**fields: Any) -> float:
        recipe = dataclasses.replace(
            tiny(optimizer="sgd", warmup=0.0, schedule="constant", **fields),
            epochs=1,
            batch_size=330,
            learning_rate=1.0,
        )
        torch.manual_seed(recipe.seed)
        before, _ = first_network("resnet14", tuple("0123456789"), recipe)
        checkpoint = load_checkpoint(fit("resnet14", few(), recipe))
        after = checkpoint.network(calibrated=False)
        pairs = zip(after.parameters(), before.parameters(), strict=True)
        return math.hypot(*(float((a - b).detach().norm()) for a, b in pairs))

    # Nesterov's first step is (1 + momentum) times the gradient.
    assert moved(clip=0.01, weight_decay=0.0) == pytest.approx(0.019, rel=0.02)
    assert moved(weight_decay=0.0) > 0.1


def test_a_checkpoint_is_replaced_by_rename(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    WholeFileIO().save_checkpoint({"value": 1}, path)
    before = path.stat().st_ino
    WholeFileIO().save_checkpoint({"value": 2}, path)
    assert torch.load(path, weights_only=True) == {"value": 2}
    assert path.stat().st_ino != before
