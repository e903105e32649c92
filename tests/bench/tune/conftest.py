from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tuning import epoch

from training.recipe import Recipe
from training.records import Epoch


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
