"""SIGHUP before the supervisor is there, which reloads on it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from core.errors import UserError
from serving import command, launch


@pytest.fixture
def hangups() -> Iterator[list[int]]:
    """Returns a list that grows by each SIGHUP that the service leaves to who started it."""
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: heard.append(number))
    yield heard
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("module", [launch, command])
def test_a_hangup_during_the_start_ends_nothing(
    module: Any, hangups: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["serving"])

    def hang_up() -> NoReturn:
        os.kill(os.getpid(), signal.SIGHUP)
        raise UserError("the start went on")

    monkeypatch.setattr(module, "warn_of_unknown", hang_up)
    with pytest.raises(UserError, match="the start went on"):
        module.main()
    assert hangups == []
    os.kill(os.getpid(), signal.SIGHUP)  # the service is over: it is heard as before
    assert hangups == [signal.SIGHUP]
