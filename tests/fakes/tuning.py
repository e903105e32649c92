"""Two networks of a search, and trials of them, without the training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from few_digits import few_digits

from bench.tune.latency import Speed
from bench.tune.plan import Candidate
from bench.tune.search import Search, Tried
from bench.tune.sections import Found
from training.recipe import Recipe
from training.records import Epoch

RECIPE = Recipe(
    epochs=3, batch_size=16, learning_rate=0.01, resize=8, crop=8, min_scale=1.0, flip=False
)
NAMES = ("resnet14", "resnet14_se")
FAST = Speed(p50_s=1e-3, p99_s=2e-3, calls=100, source="measured for this search")
SLOW = replace(FAST, p50_s=3e-3, p99_s=4e-3)
SPEEDS = {"resnet14": FAST, "resnet14_se": SLOW}


def candidates() -> list[Candidate]:
    """Returns two networks with a small recipe."""
    return [Candidate(model=name, recipe_name="digits", recipe=RECIPE) for name in NAMES]


def epoch(number: int, top1: float) -> Epoch:
    """Returns the record of an epoch with this held-out top-1."""
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


def searched(folder: Path, count: int) -> Search:
    """Runs a search of the two networks in ``folder``, up to ``count`` trials."""
    search = Search(folder)
    search.begin(candidates(), None)
    search.run(candidates(), few_digits("pets", train=32, val=16), count)
    return search


def found(*tried: Tried) -> Found:
    """Returns what a search found, from its trials."""
    by_name = {each.model: each for each in candidates()}
    return Found(
        data="my pets", candidates=by_name, speeds=SPEEDS, tried=tried, p99=0.005, images=16
    )


def trial(number: int, model: str, top1: float | None, **fields: Any) -> Tried:
    """Returns a trial that ended."""
    fields = fields or {"learning_rate": 0.02, "randaugment": 3}
    return Tried(number=number, model=model, fields=fields, top1=top1, epochs=3)
