"""What stops a run: Ctrl-C after the epoch, a second one at once, and SIGTERM at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import pytorch_lightning as lightning
from rich.console import Console


class StopAfterEpoch(lightning.Callback):
    """On Ctrl-C, stops the run when the epoch is complete and saved; on a second one, at once.

    Where the process ignores Ctrl-C, as in the background of a shell script, it still does.

    Args:
        console: where it is said.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._asked = False
        self._before: Any = None  # the handler, while it is replaced
        self._where = ""

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Replaces the handler of Ctrl-C."""
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            self._before = handler
            signal.signal(signal.SIGINT, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            self._before(number, frame)
        self._asked = True
        self._console.print(
            f"stopping when {self._where} is complete and saved; "
            "Ctrl-C again stops now, without it",
            soft_wrap=True,
        )

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        """Stops the run if asked to in the epoch before, which has been saved since."""
        self._stop_if_asked(trainer)
        self._where = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Stops the run if asked to in the last epoch."""
        self._stop_if_asked(trainer)
        self._restore()

    def on_exception(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Restores the handler, also the one that Lightning sets while it shuts down."""
        self._restore()

    def _stop_if_asked(self, trainer: lightning.Trainer) -> None:
        """Raises KeyboardInterrupt in all processes if one of them was asked to stop."""
        if trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            raise KeyboardInterrupt

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None


class OwnSignals(lightning.Callback):
    """Restores our SIGTERM handler, which Lightning replaces by one that exits with status 0."""

    def setup(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, stage: str
    ) -> None:
        """Saves the handler before Lightning replaces it."""
        self._handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Restores it."""
        if threading.current_thread() is threading.main_thread():  # only it may set handlers
            signal.signal(signal.SIGTERM, self._handler)
