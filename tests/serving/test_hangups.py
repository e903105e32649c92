"""SIGHUP before the supervisor is there, which reloads on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

import serving.__main__
from core.errors import UserError
from pocketnets.command import COMMANDS
from serving import launch


@pytest.fixture
def hangups() -> Iterator[list[int]]:
    """Returns a list that grows by each SIGHUP that the service leaves to who started it."""
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: heard.append(number))
    yield heard
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("main", "module"),
    [(launch.main, "serving.starting"), (serving.__main__.main, "serving.command")],
)
def test_a_hangup_during_the_start_ends_nothing(
    main: Callable[[], int],
    module: str,
    hangups: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["serving"])

    def hang_up() -> NoReturn:
        os.kill(os.getpid(), signal.SIGHUP)
        raise UserError("the start went on")

    monkeypatch.setattr(f"{module}.warn_of_unknown", hang_up)
    with pytest.raises(UserError, match="the start went on"):
        main()
    assert hangups == []
    os.kill(os.getpid(), signal.SIGHUP)  # the service is over: it is heard as before
    assert hangups == [signal.SIGHUP]


def test_hangups_are_ignored_before_the_service_is_imported() -> None:
    assert COMMANDS["serve"].main == "serving.__main__:main"
    look = """
import sys
import serving.__main__, serving.launch
print(*sorted(name for name in sys.modules if name.startswith("serving.")))
"""
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["serving.__main__", "serving.launch"]
