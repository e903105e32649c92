"""Proves that a model can be served, before those who serve it hear of it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess

from artifact.opening import open_artifact, open_runtime
from core.errors import UserError
from serving.listing import Entry
from serving.repository import check
from serving.settings import Settings

_PATIENCE_S = 60  # for a golden batch


class Proof:
    """The golden batch of a model that came or changed, run in a process of its own.

    Once its time is over that process is ended by the system, even if nobody asks any more.

    Args:
        find: returns the model, or raises UserError.
        settings: those of the service.
    """

    def __init__(self, find: Callable[[], Entry], settings: Settings) -> None:
        self._found: Entry | UserError
        self._process: ForkProcess | None = None
        try:
            self._found = find()
        except UserError as error:
            self._found = error
            return
        self._answer, theirs = multiprocessing.Pipe(duplex=False)
        self._process = multiprocessing.get_context("fork").Process(
            target=_prove, args=(theirs, self._found, settings), daemon=True
        )
        self._process.start()
        theirs.close()

    @property
    def is_done(self) -> bool:
        """Returns whether the process has answered or ended."""
        return self._process is None or self._answer.poll()

    def entry(self) -> Entry:
        """Returns the model; call it once. Unless it is done, it is waited for.

        Raises:
            UserError: it is no artifact, or its golden batch did not come out right, or not in a
                minute.
        """
        if isinstance(self._found, UserError):
            raise self._found
        assert self._process is not None
        try:
            why = self._answer.recv()
        except EOFError:
            self._process.join()
            why = f"{self._found.artifact}: the process that ran its golden batch ended by itself"
            if self._process.exitcode == -signal.SIGALRM:
                why = f"{self._found.artifact}: its golden batch took more than {_PATIENCE_S} s"
        self.stop()
        if why:
            raise UserError(why)
        return self._found

    def stop(self) -> None:
        """Ends the process, whose answer is not needed any more."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._answer.close()
            self._process = None


def _prove(answer: Connection, entry: Entry, settings: Settings) -> None:
    # The supervisor's handlers of signals are for itself: they would keep this process alive.
    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.alarm(_PATIENCE_S)
    _run_golden(answer, entry, settings)


def _run_golden(answer: Connection, entry: Entry, settings: Settings) -> None:
    try:
        check(entry, settings)
        artifact = open_artifact(entry.artifact, allow_unverified=settings.allow_unverified)
        with open_runtime(entry.runtime, artifact, threads=entry.call_threads):
            pass
    except UserError as error:
        answer.send(str(error))
    else:
        answer.send("")
    os._exit(0)  # not through what the parent has open
