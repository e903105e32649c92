"""A search in several processes, of which some are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Thread
from time import sleep
from typing import Any

import pytest
from few_digits import few_digits
from quick_start import forking
from tuning import RECIPE, candidates, found

from bench.tune.processes import _failure, run_in_processes
from bench.tune.search import Search
from core.errors import UserError

optuna = pytest.importorskip("optuna", reason="optuna is not installed: pip install '.[tune]'")


@pytest.fixture
def quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts the processes of a search with what takes seconds to import."""
    modules = ("optuna", "pytorch_lightning", "sqlalchemy", "torchmetrics")
    monkeypatch.setattr("bench.tune.processes.get_context", forking(modules))


def searched_by_two(folder: Path, trials: int, *, epochs: int = 1) -> Search:
    """Runs a search in two processes, with real trainings on tiny images."""
    recipe = replace(RECIPE, epochs=epochs)
    tiny = [replace(each, recipe=recipe) for each in candidates()]
    search = Search(folder)
    search.begin(tiny, None)
    run_in_processes(search, tiny, few_digits("pets", train=32, val=16), trials, workers=2)
    return search


@pytest.mark.usefixtures("quick_start")
def test_two_processes_lose_no_trial_and_run_none_twice(tmp_path: Path) -> None:
    search = searched_by_two(tmp_path, 5)
    tried = search.tried()
    assert [each.number for each in tried] == list(range(5))
    assert len({each.fields["learning_rate"] for each in tried}) == 5
    fronts = [found(*one.tried()).front for one in (search, Search(tmp_path))]
    assert fronts[0]
    assert fronts[0] == fronts[1]


@pytest.mark.usefixtures("quick_start")
def test_the_trial_of_a_killed_process_is_tried_by_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed: list[Any] = []

    study = Search(tmp_path).study()

    def kill_one() -> None:
        while not killed:
            sleep(0.05)
            for each in study.get_trials(deepcopy=False):
                if each.state.name == "RUNNING" and each.intermediate_values:
                    os.kill(each.user_attrs["process"], signal.SIGKILL)
                    killed.append(each)
                    return

    killer = Thread(target=kill_one, daemon=True)
    killer.start()
    searched_by_two(tmp_path, 4, epochs=4)  # all trials end, so there is a report
    killer.join()
    assert "was killed by signal 9 (Killed, as for want of memory)" in capsys.readouterr().err
    search = Search(tmp_path)
    assert len(search.tried()) == 4  # by the other
    states = [each.state.name for each in search.study().get_trials()]
    assert sorted(set(states) - {"PRUNED"}) == ["COMPLETE", "FAIL"]
    assert states.index("FAIL") == killed[0].number
    again = [each for each in search.study().get_trials() if each.user_attrs.get("cuts")]
    assert [each.params for each in again] == [killed[0].params]


@pytest.mark.usefixtures("quick_start")
def test_the_last_trial_of_a_killed_process_is_tried_again_by_a_new_one(tmp_path: Path) -> None:
    study = Search(tmp_path).study()

    def kill_the_last() -> None:
        while True:
            sleep(0.02)
            every = study.get_trials(deepcopy=False)
            running = [each for each in every if each.state.name == "RUNNING"]
            if len(every) == 1 and running and running[0].intermediate_values:
                os.kill(running[0].user_attrs["process"], signal.SIGKILL)
                return

    killer = Thread(target=kill_the_last, daemon=True)
    killer.start()
    search = Search(tmp_path)
    few = [replace(each, recipe=replace(RECIPE, epochs=4)) for each in candidates()]
    search.begin(few, None)
    run_in_processes(search, few, few_digits("pets", train=32, val=16), 1, workers=1)
    killer.join()
    states = [each.state.name for each in search.study().get_trials()]
    assert states == ["FAIL", "COMPLETE"]


def test_processes_that_fail_before_all_trials_end_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Without quick_start: this process is started as every other one is, anew.
    search = Search(tmp_path)
    search.begin(candidates(), None)
    few = few_digits("pets", train=8, val=8)
    with pytest.raises(UserError, match="1 of 1 processes failed, see above, and 0 of 2 trials"):
        run_in_processes(search, candidates(), few, 2, workers=1)
    assert "failed with status 1, see above" in capsys.readouterr().err
    assert _failure(143) == "was killed by signal 15 (Terminated)"


def test_processes_end_with_the_one_that_started_them() -> None:
    code = """
import multiprocessing, os, signal, time
from bench.tune.processes import _end_with_parent

def work(started):
    started.set()
    _end_with_parent()
    time.sleep(600)

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    started = context.Event()
    context.Process(target=work, args=(started,)).start()
    started.wait()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run(  # returns when all that write to the pipe have ended
        [sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=120, check=False
    )
    assert ended.returncode == -signal.SIGKILL
