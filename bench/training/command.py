"""``python -m bench training``: measures how fast a network trains."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from core.cli import results
from report.section import Table
from report.terminal import print_table


@dataclass(frozen=True, kw_only=True)
class Training:
    """Measure images/s of training: the loader, the step, both, and a plain loop."""

    model: str = "mobilenet_v3"
    """Network, by its registry name."""
    data: str = "digits"
    """Data set or folder, as for training."""
    recipe_name: str | None = None
    """Recipe, by name; if left out, the default for this network and data."""
    workers: int | None = None
    """Processes that decode images; if left out, those of the recipe."""
    batch_size: int | None = None
    """Batch size; if left out, that of the recipe."""
    steps: int = 12
    """Timed steps in each of three rounds."""

    def __call__(self) -> None:
        """Prints a table of images/s."""
        from bench.training.measure import REFERENCE, training_rates
        from training.datasets import load_data
        from training.look import look
        from training.options import FolderOptions
        from training.recipes import RECIPES, default_recipe, native_side

        name = self.recipe_name or default_recipe(self.model, self.data)
        recipe = RECIPES[name](native_side(self.model))
        recipe = dataclasses.replace(
            recipe,
            weights="random",
            workers=recipe.workers if self.workers is None else self.workers,
            batch_size=self.batch_size or recipe.batch_size,
        )
        recipe.check()
        data = look(load_data(self.data), FolderOptions())
        rates = training_rates(self.model, data, recipe, steps=self.steps)
        slower = min(rates.loader, rates.step)
        rows = [
            ("loader alone", f"{rates.loader:,.1f}", ""),
            ("step alone", f"{rates.step:,.1f}", ""),
            ("both", f"{rates.both:,.1f}", f"{rates.both / slower:.2f} of the slower"),
        ]
        for loop, rate in rates.loops.items():
            versus = f"step: {rates.step / rate:.2f} of it" if loop == REFERENCE else ""
            rows.append((loop, f"{rate:,.1f}", versus))
        header = ("what", "images/s", "ratio")
        results().print(f"{self.model} on {self.data}, recipe {name}, {rates.device}")
        print_table(Table(header=header, rows=tuple(rows), numeric=frozenset(header[1:2])))
