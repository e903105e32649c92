"""Changes of the list of models while the service runs, and following those of other processes."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from core.errors import UserError
from serving.errors import Refusal
from serving.listing import Listing
from serving.models import Models
from serving.naming import told
from serving.state import Locked, Report, State

_LOOK_S = 0.1  # between two looks at the list
_TURN_S = 0.05  # between two tries to be the one that changes it
_PATIENCE_S = 60  # for another change to end, and for all workers to follow

_log = logging.getLogger(__name__)


class Administration:
    """Changes and follows the list of ``models``.

    Args:
        models: those of this process.
        state: what this process shares with others; None if it is the only one.
    """

    def __init__(self, models: Models, state: State | None = None) -> None:
        self.models = models
        self._state = state
        self._turn = asyncio.Lock()

    async def change(self, make: Callable[[Listing], Listing]) -> list[Report]:
        """Replaces the list by what ``make`` makes of it; all workers have followed afterwards.

        Nothing changes unless the models that are new in it, or in another part than before, can be
        loaded in this process. One that was listed and is broken by now stands in no one's way.

        Returns:
            How far each worker has followed; empty if this process is the only one.

        Raises:
            Refusal: the change is not possible, the models cannot be loaded, the list cannot be
                written, another change takes too long, or a worker did not follow.
        """
        async with self._turn:
            if self._state is None:
                if self.models.settings.workers > 1:
                    detail = "the workers of bentoml serve share no list: take pocketnets serve"
                    raise Refusal(409, "not_possible", detail)
                await self._try(make, self.models.listing)
                return []
            async with self._alone(self._state):
                before = self._state.read()
                listing = await self._try(make, before)
                try:
                    self._state.write(listing)
                except UserError as error:
                    await self.models.follow(before)
                    raise Refusal(503, "not_written", str(error)) from None
                self._state.report(listing.revision, self.models.failed)
        differing = listing.differing(before)
        return await self._wait_for_all(self._state, listing.revision, differing)

    async def follow(self) -> None:
        """Follows the shared list until it is cancelled."""
        if self._state is None:
            return
        state, models = self._state, self.models
        state.report(models.listing.revision, models.failed)
        trouble = ""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                if state.has_changed():
                    await self._catch_up(state)
            except Exception as error:
                if repr(error) != trouble:
                    _log.exception("the list of models cannot be followed")
                trouble = repr(error)
            else:
                trouble = ""

    async def _catch_up(self, state: State) -> None:
        async with self._turn:
            listing = state.read()
            if listing.revision == self.models.listing.revision:
                return
            failed = await self.models.follow(listing)
            for reference, why in failed.items():
                print(f"error: {why}; {reference} is not taken", file=sys.stderr, flush=True)
            state.report(listing.revision, failed)

    async def _try(self, make: Callable[[Listing], Listing], before: Listing) -> Listing:
        try:
            listing = make(before)
        except UserError as error:
            detail = told(error, self.models.settings, before.entries)
            raise Refusal(409, "not_possible", detail) from None
        failed = await self.models.follow(listing)
        differing = listing.differing(before)
        why = [text for reference, text in failed.items() if reference in differing]
        if why:
            await self.models.follow(before)
            raise Refusal(409, "not_loaded", "; ".join(why))
        return listing

    @asynccontextmanager
    async def _alone(self, state: State) -> AsyncGenerator[None, None]:
        end = time.monotonic() + _PATIENCE_S
        while True:
            with suppress(Locked), state.locked():
                yield
                return
            if time.monotonic() > end:
                raise Refusal(409, "busy", "another change of the models has not ended; try again")
            await asyncio.sleep(_TURN_S)

    async def _wait_for_all(self, state: State, revision: int, differing: set[str]) -> list[Report]:
        end = time.monotonic() + _PATIENCE_S
        while True:
            reports = state.reports()
            behind = [each.pid for each in reports if each.revision < revision]
            failed = [
                why
                for each in reports
                if each.revision >= revision
                for reference, why in each.failed.items()
                if reference in differing
            ]
            if failed:
                detail = f"not every worker could follow: {failed[0]}"
                raise Refusal(500, "not_everywhere", detail)
            if not behind:
                return reports
            if time.monotonic() > end:
                detail = f"{len(behind)} workers have not followed within {_PATIENCE_S} s"
                raise Refusal(500, "not_everywhere", detail)
            await asyncio.sleep(_LOOK_S)


def shown(reports: list[Report]) -> list[dict[str, Any]]:
    """Returns ``reports``, ready for JSON."""
    return [{"pid": each.pid, "revision": each.revision} for each in reports]
