"""The progress bar of a run: number of images, speed, and remaining time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

import rich.progress
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from core import cli
from core.errors import UserError


class Progress:
    """A bar on stderr, if that is a terminal. A context manager.

    Args:
        count: returns the number of images, None if unknown; called in a separate thread, as it may
            take a while.
        shown: whether to show a bar at all.
    """

    def __init__(self, count: Callable[[], int | None], *, shown: bool = True) -> None:
        console = cli.notes()
        self._bar = rich.progress.Progress(
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=2,  # each refresh costs some CPU time
            transient=True,
            disable=not (shown and console.is_terminal),
        )
        self._task = self._bar.add_task("", total=None, rate="")
        self._count = count
        self._begun: float | None = None
        self._done = 0

    def __enter__(self) -> Self:
        self._bar.start()
        if not self._bar.disable:
            threading.Thread(target=self._find_total, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def skip(self) -> None:
        """Counts an image that an earlier run has classified."""
        self._bar.advance(self._task)

    def advance(self) -> None:
        """Counts an image."""
        if self._bar.disable:
            return
        now = time.perf_counter()
        if self._begun is None:
            self._begun = now
        else:
            self._done += 1
            rate = self._done / max(now - self._begun, 1e-9)
            self._bar.update(self._task, rate=f"{rate:,.1f} images/s")
        self._bar.advance(self._task)

    def _find_total(self) -> None:
        with suppress(UserError, OSError):  # the run itself will report it
            self._bar.update(self._task, total=self._count())
