"""Looks again at the artifacts of the listed models, as they lie on the disk now.

A model that is broken there goes on as it was loaded, in the workers that have it. So then they are
not replaced: what changed in the other models is listed, which the workers follow.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace

from core.errors import UserError
from serving.listing import Entry
from serving.proving import Proof
from serving.repository import check, refreshed, without_threshold
from serving.settings import Settings
from serving.state import State

_LOOK_S = 0.05  # between two looks whether a golden batch has come out


def reload(settings: Settings, state: State, ended: Callable[[], bool]) -> bool:
    """Lists what changed in the sound models if one is broken, and says on stderr which one is.

    Args:
        settings: those of the service.
        state: its list.
        ended: returns whether the service is to end, which waits for no golden batch.

    Returns:
        Whether none is broken: then all workers can be replaced.

    Raises:
        UserError: the service is to abstain, and none of the models can; or the list cannot be
            written.
        Locked: another process changes the list.
    """
    with state.locked():
        before = listing = state.read()
        broken: dict[str, str] = {}
        for entry in before.entries:
            if ended():
                return False
            try:
                now = _sound(entry, settings, ended)
                listing = listing if now == entry else listing.having(now)
            except UserError as error:
                broken[entry.reference] = str(error)
        if not broken:
            without_threshold(before, settings)
            if listing != before:  # for those that come: who has loaded it before is replaced
                state.write(replace(listing, revision=before.revision))
            return True
        for reference, why in broken.items():
            _say(f"error: {why}; {reference} goes on as it was loaded")
        if listing != before:
            state.write(listing)
    for reference in sorted(listing.differing(before)):
        _say(f"models: {reference} is loaded again")
    return False


def _sound(entry: Entry, settings: Settings, ended: Callable[[], bool]) -> Entry:
    """Returns a model as it is now, of the same name and in the same runtime.

    If the service is to end before that is known, it is the one that was.

    Raises:
        UserError: it is broken.
    """
    check(entry, settings)
    now = refreshed(entry)
    if now == entry:
        return entry
    proof = Proof(lambda: now, settings)
    while not proof.is_done:
        if ended():
            proof.stop()
            return entry
        time.sleep(_LOOK_S)
    return proof.entry()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
