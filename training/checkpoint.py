"""Checkpoints: written by training, read by export."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from core.errors import UserError, first_line
from core.names import canonical_name
from core.preprocess import Preprocess
from core.task import Task
from models.classifier import Classifier
from models.registry import build_model
from models.weight_places import probe
from training.identity import DIGEST_BYTES
from training.options import FolderOptions
from training.qat.network import QuantizedNetwork
from training.records import Epoch
from training.thresholds import Abstention

KEY = "pocketnets"  # key of our data inside Lightning's checkpoint
PREFIX = "network."  # prefix of the network's weights in the LightningModule
SCHEMA = 3
_READ = (2, SCHEMA)  # version 2 does not record the training images


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A trained network with everything needed to use it.

    Attributes:
        model: registry name.
        data: name of the data set.
        labels: class names, in the order of the logits.
        preprocess: how an image becomes pixels.
        recipe: all fields of its recipe.
        metrics: ``top1`` in [0, 1] on the held-out ``images``, ``loss`` of the last epoch,
            ``peak_bytes`` of memory in training.
        history: figures of each epoch.
        confusion: int64 (C, C) of held-out images: rows are true classes, columns predicted ones.
            If an image may have several labels, int64 (C, 2, 2): of each label, rows are images
            without and with it, columns those not given and given it
            by its threshold.
        state_dict: weights of the Classifier, including normalisation.
        trained_on: digests of the images it was trained on; None if not recorded.
        options: how the folder of training images was read.
        temperature: what :meth:`network` divides the logits by, so that scores are calibrated.
        task: whether an image has one class or any number of labels.
        thresholds: scores above which an image has each label; empty for one class.
        abstention: when the most likely class is no answer; None if it always is one.
        qat: of a run with quantization-aware fine-tuning: digest of the float32 weights, and bits
            of the int8 ones.
        recipe_name: name of the recipe, of which ``recipe`` may differ; None if not recorded.
    """

    model: str
    data: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    recipe: dict[str, Any]
    metrics: dict[str, float]
    history: tuple[Epoch, ...]
    confusion: torch.Tensor
    state_dict: dict[str, torch.Tensor]
    trained_on: frozenset[bytes] | None = None
    options: FolderOptions = field(default_factory=FolderOptions)
    temperature: float = 1.0
    task: Task = "single"
    thresholds: tuple[float, ...] = ()
    abstention: Abstention | None = None
    qat: dict[str, Any] | None = None
    recipe_name: str | None = None

    def network(self, *, calibrated: bool = True) -> Classifier | QuantizedNetwork:
        """Returns the trained network in evaluation mode: uint8 (N, H, W, 3) -> (N, C).

        Args:
            calibrated: whether the last layer is divided by the temperature.
        """
        if self.qat is not None:
            quantized = QuantizedNetwork(
                self.state_dict["graph"].numpy().tobytes(), limit=int(self.state_dict["limit"])
            )
            quantized.load_state_dict(self.state_dict)
            return quantized.eval()
        network = Classifier(build_model(self.model, num_classes=len(self.labels)))
        weights = dict(self.state_dict)
        if calibrated and self.temperature != 1:
            _, head = probe(self.model)
            for key in (f"backbone.{key}" for key in head):
                weights[key] = weights[key] / self.temperature
        network.load_state_dict(weights)
        return network.eval()


def run_folder(model: str, data: str) -> Path:
    """Returns the folder of a network's run on a data set, relative to the current folder."""
    return Path("runs") / f"{canonical_name(model)}-{data}"


def checkpoint_path(run: Path) -> Path:
    """Returns the checkpoint of the finished run in folder ``run``."""
    return run / "checkpoint.ckpt"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Returns the content of a checkpoint file; nothing in it is executed (``weights_only``).

    Raises:
        UserError: the file is not a checkpoint of this project, or is damaged.
    """
    with _damaged(path):
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        schema = saved[KEY]["schema"]
    if schema not in _READ:
        raise UserError(f"{path}: schema is {schema}, this version reads {SCHEMA}")
    return saved


def load_checkpoint(path: Path) -> Checkpoint:
    """Returns the checkpoint in a file; see :func:`read_checkpoint` for what it raises."""
    saved = read_checkpoint(path)
    with _damaged(path):
        block = saved[KEY]
        return Checkpoint(
            model=block["model"],
            data=block["data"],
            labels=tuple(block["labels"]),
            preprocess=Preprocess(**block["preprocess"]),
            recipe=block["recipe"],
            metrics=block["metrics"],
            history=tuple(Epoch(**epoch) for epoch in block["history"]),
            confusion=block["confusion"],
            state_dict={
                key.removeprefix(PREFIX): value
                for key, value in saved["state_dict"].items()
                if key.startswith(PREFIX)  # without the state of metrics
            },
            trained_on=_digests(block["trained_on"]) if "trained_on" in block else None,
            options=FolderOptions(**block.get("options", {})),
            temperature=block.get("temperature", 1.0),
            task=block.get("task", "single"),
            thresholds=tuple(block.get("thresholds", ())),
            abstention=Abstention(**block["abstention"]) if block.get("abstention") else None,
            qat=block.get("qat"),
            recipe_name=block.get("recipe_name"),
        )


def facts_of_data(digests: Iterable[bytes], options: FolderOptions) -> dict[str, Any]:
    """Returns a checkpoint's record of its data, in types that ``weights_only`` loading allows."""
    content = bytearray(b"".join(sorted(digests)))
    trained_on = torch.frombuffer(content, dtype=torch.uint8).reshape(-1, DIGEST_BYTES)
    return {"trained_on": trained_on, "options": asdict(options)}


def _digests(trained_on: torch.Tensor) -> frozenset[bytes]:
    return frozenset(row.tobytes() for row in trained_on.numpy())


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """Turns exceptions of reading a damaged checkpoint into a UserError that names the file."""
    try:
        yield
    except (
        RuntimeError,
        KeyError,
        TypeError,
        EOFError,
        OSError,
        pickle.UnpicklingError,
    ) as error:
        raise UserError(
            f"{path}: not a checkpoint of this project, or damaged ({first_line(error)}); "
            "train again (--fresh drops an unfinished run)"
        ) from None
