"""SIGHUP: ignored before the supervisor is there, and one reload for all that come together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import uvicorn

import serving.__main__
from core.errors import UserError
from pocketnets.command import COMMANDS
from serving import launch
from serving.state import State
from serving.supervisor import _Supervisor


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


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[_Supervisor]:
    """Returns one without workers; uvicorn's handles eleven signals, which are as before then."""
    numbers = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    before = {number: handler for number in numbers if (handler := signal.getsignal(number))}
    yield _Supervisor(uvicorn.Config("serving.supervisor:create"), [], State(tmp_path))
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def reloads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list that grows by each reload, during the first of which three SIGHUPs come."""
    begun: list[int] = []

    def reload(*_: Any) -> bool:
        begun.append(len(begun))
        for _number in range(3 if len(begun) == 1 else 0):
            os.kill(os.getpid(), signal.SIGHUP)
        return False

    monkeypatch.setattr("serving.supervisor.reload", reload)
    return begun


def test_hangups_that_come_together_are_one(supervisor: _Supervisor, reloads: list[int]) -> None:
    for _ in range(5):
        os.kill(os.getpid(), signal.SIGHUP)
    supervisor.handle_signals()
    assert reloads == [0]
    for _ in range(3):
        supervisor.handle_signals()
    assert reloads == [0, 1]
    assert not supervisor.should_exit.is_set()


def test_a_service_that_is_to_end_reloads_no_more(
    supervisor: _Supervisor, reloads: list[int]
) -> None:
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
    supervisor.handle_signals()
    supervisor.handle_signals()
    assert supervisor.should_exit.is_set()
    assert reloads == []


def test_the_end_of_a_service_ends_a_reload(
    supervisor: _Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reload(*_: Any) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return True

    monkeypatch.setattr("serving.supervisor.reload", reload)
    workers: list[Any] = [object(), object()]  # none may be touched
    supervisor.processes = list(workers)
    supervisor.signal_queue.append(signal.SIGHUP)
    supervisor.handle_signals()
    assert supervisor.should_exit.is_set()
    supervisor.handle_signals()
    assert supervisor.should_exit.wait(0)
    assert supervisor.processes == workers
