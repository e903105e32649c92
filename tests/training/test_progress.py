"""The lines that a training run prints."""

from __future__ import annotations

import re
from io import StringIO
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from training.module import ClassifierModule
from training.progress import ProgressBar
from training.records import Epoch


def test_the_figures_of_an_epoch_are_one_line_however_narrow_the_console() -> None:
    out = StringIO()
    module = ClassifierModule.__new__(ClassifierModule)
    module.history = [
        Epoch(
            epoch=1,
            loss=0.7,
            train_top1=0.771,
            val_loss=0.4,
            val_top1=0.944,
            val_macro_f1=0.943,
            learning_rate=0.1,
            images_per_second=62.0,
            train_seconds=1.0,
            val_seconds=1.0,
        )
    ]
    trainer: Any = SimpleNamespace(
        is_global_zero=True, num_training_batches=1, max_epochs=2, current_epoch=0
    )
    bar = ProgressBar(Console(file=out, width=40))
    bar.on_train_start(trainer, module)
    bar.on_train_epoch_end(trainer, module)
    bar.on_train_end(trainer, module)
    line = r"^epoch 1/2: loss 0\.700, .* held-out top-1 94\.4%, macro-F1 94\.3%, 62 images/s$"
    assert re.search(line, out.getvalue(), flags=re.MULTILINE)
