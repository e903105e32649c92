"""Proves that a model can be served, before those who serve it hear of it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection

from artifact.opening import open_artifact, open_runtime
from core.errors import UserError
from serving.listing import Entry
from serving.repository import check
from serving.settings import Settings

_PATIENCE_S = 60  # for a golden batch


class Proof:
    """The golden batch of a model that came or changed, run in a process of its own.

    Args:
        find: returns the model, or raises UserError.
        settings: those of the service.
    """

    def __init__(self, find: Callable[[], Entry], settings: Settings) -> None:
        self._found: Entry | UserError
        self._answer: Connection | None = None
        try:
            self._found = find()
        except UserError as error:
            self._found = error
            return
        self._answer, theirs = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(
            target=_run_golden, args=(theirs, self._found, settings), daemon=True
        )
        process.start()
        theirs.close()

    @property
    def is_done(self) -> bool:
        """Returns whether the process has answered or ended."""
        return self._answer is None or self._answer.poll()

    def entry(self) -> Entry:
        """Returns the model; call it once. Unless it is done, it is waited for.

        Raises:
            UserError: it is no artifact, or its golden batch did not come out right, or not in a
                minute.
        """
        if isinstance(self._found, UserError):
            raise self._found
        if self._answer is not None and (why := self._told(self._answer)):
            raise UserError(why)
        return self._found

    def _told(self, answer: Connection) -> str:
        """Returns what the process said: why the model is not to be taken, or nothing."""
        assert isinstance(self._found, Entry)
        why = f"{self._found.artifact}: its golden batch took more than {_PATIENCE_S} s"
        try:
            if answer.poll(_PATIENCE_S):
                why = answer.recv()
        except EOFError:
            why = f"{self._found.artifact}: the process that ran its golden batch ended by itself"
        answer.close()
        multiprocessing.active_children()  # joins those that have ended
        return why


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
