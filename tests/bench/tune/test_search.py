"""Trials of a search: what they change, and where a search goes on."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from few_digits import few_digits
from tuning import NAMES, RECIPE, SPEEDS, candidates, epoch, searched

from bench.tune.search import Search
from core.errors import UserError
from training.recipe import Recipe
from training.records import Epoch

optuna = pytest.importorskip("optuna", reason="optuna is not installed: pip install '.[tune]'")


def test_trials_change_the_recipe_within_their_ranges(
    tmp_path: Path, trials: list[tuple[str, Recipe]]
) -> None:
    search = searched(tmp_path, 8)
    assert len(trials) == len(search.tried()) == 8
    assert {model for model, _ in trials} == set(NAMES)
    for _, recipe in trials:
        assert 0.001 <= recipe.learning_rate <= 0.1
        assert 1e-4 <= recipe.weight_decay <= 0.3
        assert recipe.min_scale == 1  # the recipe does not crop at random
        same = {"learning_rate": 0.01, "weight_decay": 0.01, "randaugment": 0, "mixup": 0.0}
        assert replace(recipe, **same) == RECIPE  # type: ignore[arg-type]
    for each, (model, recipe) in zip(search.tried(), trials, strict=True):
        assert each.model == model
        assert each.fields["learning_rate"] == recipe.learning_rate
        if each.top1 is None:  # pruned
            assert 0 < each.epochs < 3
    assert any(each.top1 is None for each in search.tried())


def test_a_search_goes_on_where_it_stopped(
    tmp_path: Path, trials: list[tuple[str, Recipe]]
) -> None:
    searched(tmp_path, 2)
    assert len(searched(tmp_path, 3).tried()) == 3
    assert len(searched(tmp_path, 3).tried()) == 3
    assert len(trials) == 3
    assert len({recipe.learning_rate for _, recipe in trials}) == 3  # the seed does not repeat them
    other = [replace(each, recipe=replace(RECIPE, epochs=5)) for each in candidates()]
    with pytest.raises(UserError, match="holds trials of a search with other"):
        Search(tmp_path).begin(other, None)
    search = Search(tmp_path)
    with search.alone():
        search.restart(other, None, SPEEDS)
        assert search.begin(other, None) == SPEEDS
        assert search.tried() == []


def test_a_trial_that_was_cut_off_is_tried_again(
    tmp_path: Path, trials: list[tuple[str, Recipe]]
) -> None:
    search = Search(tmp_path)
    search.begin(candidates(), None)
    cut = search.study().ask()
    model = cut.suggest_categorical("model", list(NAMES))
    rate = candidates()[0].suggest(cut)["learning_rate"]
    assert len(searched(tmp_path, 1).tried()) == 1
    assert [(name, recipe.learning_rate) for name, recipe in trials] == [(model, rate)]


def test_a_trial_whose_process_is_killed_again_and_again_is_given_up(
    tmp_path: Path, trials: list[tuple[str, Recipe]], capsys: pytest.CaptureFixture[str]
) -> None:
    search = Search(tmp_path)
    search.begin(candidates(), None)
    search.study().ask().suggest_categorical("model", list(NAMES))
    for _ in range(2):
        search.release()
        search.study().ask()  # takes the trial that waits
    assert "its process was killed 2 times" in capsys.readouterr().err
    search.release(killed=False)
    states = [each.state.name for each in search.study().get_trials()]
    assert states == ["FAIL", "FAIL", "FAIL"]
    assert len(searched(tmp_path, 1).tried()) == 1


def test_ctrl_c_has_the_trial_tried_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, Recipe]] = []

    def run(model: str, data: Any, recipe: Recipe, go_on: Callable[[Epoch], bool]) -> Epoch:
        seen.append((model, recipe))
        if len(seen) < 4:
            raise KeyboardInterrupt
        return epoch(1, 0.5)

    monkeypatch.setattr("training.trial.run_trial", run)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            searched(tmp_path, 1)
    assert len(searched(tmp_path, 1).tried()) == 1
    assert seen == seen[:1] * 4


def test_a_loss_that_is_not_finite_is_a_failed_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.module import LossNotFinite

    def run(*_: Any) -> Epoch:
        raise LossNotFinite("the loss of epoch 1 is nan")

    monkeypatch.setattr("training.trial.run_trial", run)
    (tried,) = searched(tmp_path, 1).tried()
    assert (tried.top1, tried.failed) == (None, "the loss of epoch 1 is nan")


def test_two_commands_do_not_search_in_one_folder(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(UserError, match="another command searches"), Search(tmp_path).alone():
            pass
    finally:
        os.close(descriptor)


def test_a_search_of_which_no_trial_ended_is_not_in_the_way_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trials: list[tuple[str, Recipe]]
) -> None:
    def fails(*_: Any) -> Epoch:
        raise UserError("no weights")

    with monkeypatch.context() as patch:
        patch.setattr("training.trial.run_trial", fails)
        with pytest.raises(UserError, match="no weights"):
            searched(tmp_path, 1)
    search, other = Search(tmp_path), candidates()[1:]
    search.keep_speeds(SPEEDS)
    assert search.begin(other, None) is None  # latencies may be of another size
    search.run(other, few_digits("pets", train=32, val=16), 1)
    assert [each.model for each in search.tried()] == ["resnet14_se"]
