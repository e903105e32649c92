"""``pocketnets tune``: what it measures, finds and refuses."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from few_digits import few_digits, write_images
from tuning import FAST, NAMES, SPEEDS, candidates, found, trial

from bench.tune.command import Tune
from bench.tune.latency import speeds, within
from bench.tune.plan import find_candidates
from bench.tune.search import Search
from bench.tune.sections import tune_report
from core.errors import UserError
from core.machine import this_machine
from models.imagenet import WeightsUnavailable
from training.recipe import Recipe

optuna = pytest.importorskip("optuna", reason="optuna is not installed: pip install '.[tune]'")


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
