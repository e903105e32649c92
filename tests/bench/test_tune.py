from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread
from time import sleep
from types import SimpleNamespace
from typing import Any

import pytest
from few_digits import few_digits, write_images

from bench.tune.command import Tune
from bench.tune.latency import Speed, speeds, within
from bench.tune.plan import Candidate, find_candidates
from bench.tune.processes import _failure, run_in_processes
from bench.tune.search import Search, Tried
from bench.tune.sections import Found, tune_report
from core.errors import UserError
from core.machine import this_machine
from models.imagenet import WeightsUnavailable
from training.recipe import Recipe
from training.records import Epoch

optuna = pytest.importorskip("optuna", reason="optuna is not installed: pip install '.[tune]'")

RECIPE = Recipe(
    epochs=3, batch_size=16, learning_rate=0.01, resize=8, crop=8, min_scale=1.0, flip=False
)
NAMES = ("resnet14", "resnet14_se")
FAST = Speed(p50_s=1e-3, p99_s=2e-3, calls=100, source="measured for this search")
SLOW = replace(FAST, p50_s=3e-3, p99_s=4e-3)
SPEEDS = {"resnet14": FAST, "resnet14_se": SLOW}


def candidates() -> list[Candidate]:
    return [Candidate(model=name, recipe_name="digits", recipe=RECIPE) for name in NAMES]


def epoch(number: int, top1: float) -> Epoch:
    return Epoch(
        epoch=number,
        loss=1.0,
        train_top1=top1,
        val_loss=1.0,
        val_top1=top1,
        learning_rate=0.1,
        images_per_second=1.0,
        train_seconds=1.0,
        val_seconds=1.0,
    )


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Recipe]]:
    """Replaces the training of a trial: resnet14_se is better; a high rate is no good."""
    seen: list[tuple[str, Recipe]] = []

    def run(model: str, data: Any, recipe: Recipe, go_on: Callable[[Epoch], bool]) -> Epoch:
        seen.append((model, recipe))
        last = epoch(1, 0.0)
        for number in range(1, recipe.epochs + 1):
            top1 = (0.8 if model == "resnet14_se" else 0.6) - recipe.learning_rate
            last = epoch(number, top1)
            if not go_on(last):
                break
        return last

    monkeypatch.setattr("training.trial.run_trial", run)
    return seen


def searched(folder: Path, count: int) -> Search:
    search = Search(folder)
    search.begin(candidates(), None)
    search.run(candidates(), few_digits("pets", train=32, val=16), count)
    return search


def found(*tried: Tried) -> Found:
    by_name = {each.model: each for each in candidates()}
    return Found(
        data="my pets", candidates=by_name, speeds=SPEEDS, tried=tried, p99=0.005, images=16
    )


def trial(number: int, model: str, top1: float | None, **fields: Any) -> Tried:
    fields = fields or {"learning_rate": 0.02, "randaugment": 3}
    return Tried(number=number, model=model, fields=fields, top1=top1, epochs=3)


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


@pytest.fixture
def quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forks the processes of a search from one that has imported what takes seconds in each."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["optuna", "pytorch_lightning", "sqlalchemy", "torchmetrics"])
    monkeypatch.setattr("bench.tune.processes.get_context", lambda _: server)


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


def test_networks_beyond_the_limit_are_left_out() -> None:
    assert [each.model for each in within(candidates(), SPEEDS, 0.003)] == ["resnet14"]
    assert len(within(candidates(), SPEEDS, None)) == 2
    with pytest.raises(UserError, match=r"the fastest of 2 is resnet14 with 2.00 ms"):
        within(candidates(), SPEEDS, 0.001)
    with pytest.raises(UserError, match=r"--p99 0.0001ms: "):
        within(candidates(), SPEEDS, 1e-7, "0.0001ms")


def test_latency_is_measured_where_no_benchmark_has_it(tmp_path: Path) -> None:
    known = speeds(candidates(), "pets", 10, tmp_path)
    assert list(known) == list(NAMES)
    for speed in known.values():
        assert 0 < speed.p50_s <= speed.p99_s < 1
        assert speed.calls >= 5
        assert speed.source == "measured for this search"


def test_the_front_has_what_no_other_beats() -> None:
    tried = (
        trial(0, "resnet14", 0.7),
        trial(1, "resnet14", 0.6),
        trial(2, "resnet14_se", 0.9),
        trial(3, "resnet14_se", None),
    )
    assert [each.number for each in found(*tried).front] == [0, 2]
    slower = found(trial(0, "resnet14", 0.9), trial(1, "resnet14_se", 0.9))
    assert [each.number for each in slower.front] == [0]
    assert found(trial(0, "resnet14", None)).winner is None

    report = tune_report(found(*tried), "tuning-pets", this_machine(()), "2026-11-27T07:00:00Z")
    assert report.lead is not None
    assert [row[:5] for row in report.lead.rows] == [
        ("resnet14", "1.00", "2.00", "70.0 %", "2"),
        ("resnet14_se", "3.00", "4.00", "90.0 %", "2"),
    ]
    (points,) = report.figures[0].data.values()
    assert [(each["trial"], each["front"]) for each in points] == [
        (1, "yes"),
        (2, "no"),
        (3, "yes"),
    ]


def test_the_command_of_the_winner_trains_its_recipe(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import training.__main__ as train

    fields = {"learning_rate": 0.0123, "weight_decay": 0.00021, "randaugment": 7, "mixup": 0.1}
    one = found(trial(0, "resnet14", 0.7, **fields))
    words = shlex.split(replace(one, flags=("--group-by", "(a b)")).command(one.front[0]))
    monkeypatch.setattr(sys, "argv", ["training", *words[words.index("--model") :]])
    (here / "my pets").mkdir()
    parsed = train._parse()
    assert (parsed.model, parsed.data, parsed.group_by) == ("resnet14", "my pets", "(a b)")
    assert {name: getattr(parsed.recipe, name) for name in fields} == fields
    assert (parsed.recipe.epochs, parsed.recipe.batch_size, parsed.recipe.crop) == (3, 16, 8)


def test_a_search_on_a_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_images(few_digits("pets", train=64, val=32), here)
    tune = Tune(
        data=str(folder),
        models=("resnet14",),
        recipe_name="digits",
        epochs=1,
        size=8,
        trials=1,
    )
    tune()
    out = capsys.readouterr().out.splitlines()
    assert out[-1].startswith("python -m training --model resnet14")
    assert Path(out[-2]).is_file()
    page = Path("reports") / f"tuning-{folder.name}"
    assert page.with_suffix(".png").is_file()
    assert "| resnet14 |" in page.with_suffix(".md").read_text()
    assert (Path("tuning") / folder.name / "study.db").is_file()
    tune()  # nothing is left to try
    assert capsys.readouterr().out.splitlines()[-1] == out[-1]


def test_a_batch_that_does_not_fit_is_refused_before_anything_is_measured(
    here: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    trials: list[tuple[str, Recipe]],
) -> None:
    folder = write_images(few_digits("pets", train=60, val=32), here)
    (folder / "train" / "0" / "notes.txt").write_text("no image")
    tune = Tune(
        data=str(folder), models=("resnet14",), recipe_name="digits", epochs=1, size=8, trials=1
    )
    with pytest.raises(UserError, match=r"the 60 training images .*try --batch-size 30$"):
        tune()
    assert "1 not meant as an image" in capsys.readouterr().err  # what training says of the data
    assert not Path("tuning").exists()
    with monkeypatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: True)
        patch.setattr("torch.cuda.device_count", lambda: 3)
        with pytest.raises(UserError, match=r"batch_size is 8: .* a multiple of 3"):
            replace(tune, batch_size=8)()
    assert not Path("tuning").exists()
    replace(tune, batch_size=8)()
    assert [recipe.batch_size for _, recipe in trials] == [8]
    assert "--recipe.batch-size 8 " in capsys.readouterr().out.splitlines()[-1]
    with pytest.raises(UserError, match="with other networks, recipe, epochs, batch size"):
        replace(tune, batch_size=4)()


def test_fresh_keeps_the_trials_of_before_until_another_search_can_run(
    here: Path, monkeypatch: pytest.MonkeyPatch, trials: list[tuple[str, Recipe]]
) -> None:
    folder = write_images(few_digits("pets", train=64, val=32), here)
    monkeypatch.setattr("bench.tune.latency.speeds", lambda *_: {"resnet14": FAST})
    tune = Tune(data=str(folder), models=("resnet14",), recipe_name="digits", epochs=1, trials=2)
    tune()
    search = Search(Path("tuning") / folder.name)
    (first, second) = search.tried()
    with pytest.raises(UserError, match=r"--p99 1ms: "):
        replace(tune, fresh=True, p99="1ms", trials=1)()
    assert search.tried() == [first, second]
    replace(tune, fresh=True, p99="2ms", trials=1)()
    assert len(search.tried()) == 1
    assert len(trials) == 3


def test_missing_weights_are_said_before_anything_is_measured(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(name: str) -> str:
        if name.startswith("mobilenet"):
            raise WeightsUnavailable(f"{name}: no weights here")
        return name

    folder = write_images(few_digits("pets", train=64, val=32), here)
    monkeypatch.setattr("training.networks.load_imagenet_weights", unavailable)
    tune = Tune(
        data=str(folder), models=("mobilenet_v2",), recipe_name="finetune", size=32, batch_size=8
    )
    with pytest.raises(UserError, match=r"^mobilenet_v2: no weights .* --recipe-name scratch"):
        tune()
    three = ("mobilenet_v2", "resnet14", "mobilenet_v3_large")
    with pytest.raises(
        UserError,
        match=r"of 2 of 3 .* \(mobilenet_v2, mobilenet_v3_large\); --models resnet14 .*"
        r"; mobilenet_v2: no weights here; .* --recipe-name scratch",
    ):
        replace(tune, models=three)()
    assert not Path("tuning").exists()


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


def test_mistakes_end_in_one_line(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for changes, message in (
        ({"trials": 0}, "--trials 0"),
        ({"workers": 0}, "--workers 0"),
        ({"folds": 3}, "--folds"),
        ({"models": ("resnet15",)}, "resnet15"),
        ({"models": ()}, "--models is empty"),
        ({"p99": "fast"}, "fast"),
        ({"recipe_name": "none"}, "none"),
        ({"recipe_name": "qat"}, "trains the int8 form"),
    ):
        with pytest.raises(UserError, match=message):
            Tune(data="digits", **changes)()  # type: ignore[arg-type]
    several = SimpleNamespace(name="pets", task="multi")
    monkeypatch.setattr("training.datasets.load_data", lambda *_: several)
    monkeypatch.setattr("training.look.look", lambda data, *_: data)
    with pytest.raises(UserError, match="any number of labels"):
        Tune(data="digits", models=("resnet14",))()
    (here / "study.db").write_bytes(b"no database")
    with pytest.raises(UserError, match="cannot be used"):
        Search(here).study()


def test_images_of_another_side() -> None:
    (one,) = find_candidates(("resnet14",), "digits", size=96, epochs=2)
    assert (one.recipe.crop, one.recipe.resize, one.recipe.epochs) == (96, 96, 2)
    assert json.dumps(one.recipe_name) == '"digits"'
