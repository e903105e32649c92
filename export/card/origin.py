"""Where the weights of a model card come from: the data, the recipe, and training in int8."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifact.artifact import Artifact
from report.format import plural
from report.markdown import escape, table
from training.qat.names import SUFFIX
from training.recipe import CUSTOM, Recipe
from training.recipes import RECIPES, find_recipe

if TYPE_CHECKING:
    from training.checkpoint import Checkpoint

_OF_THE_MACHINE = "workers"  # the field that says how images are decoded, not what is learned


def data_of(artifact: Artifact, run: Checkpoint | None) -> str:
    """Returns the name of the data, without what the name of the run or the artifact adds to it."""
    if artifact.weights == "imagenet":
        return "imagenet"
    name = run.data if run else artifact.data
    if artifact.source.qat:
        name = name.removesuffix(SUFFIX)
    return name.removesuffix(f"-fold{artifact.source.fold}")


def trained_in_int8(artifact: Artifact) -> bool:
    """Returns whether it has the ranges and weights that fine-tuning learned for int8."""
    return artifact.quantization is not None and artifact.quantization.calibration == "QAT"


def data_part(artifact: Artifact, run: Checkpoint | None) -> Iterator[str]:
    """Yields how many images were learned from and held out."""
    if run is None:
        yield f"Weights: {escape(artifact.source.origin)}."
        return
    learned = "" if run.trained_on is None else f" {plural(len(run.trained_on), 'image')}"
    yield (
        f"Trained on{learned} of {escape(data_of(artifact, run))}; "
        f"{plural(int(run.metrics['images']), 'image')} were held out."
    )
    if fold := artifact.source.fold:
        yield f"It is fold {fold.replace('of', ' of ')} of a cross-validation that was held out."
    if "test_images" in run.metrics:
        further = plural(int(run.metrics["test_images"]), "image")
        yield f"Further {further} were looked at once, after training."


def recipe_part(artifact: Artifact, run: Checkpoint | None) -> Iterator[str]:
    """Yields the recipe by its name, and what the run had otherwise."""
    if run is None:
        yield "The weights were not trained by a run of this package that the export knows."
    else:
        yield from _recipe(run)
    if trained_in_int8(artifact) and (qat := artifact.source.qat):
        yield ""
        yield (
            "Quantization-aware fine-tuning (QAT) then trained the int8 form for "
            f"{plural(qat.epochs, 'epoch')}: its weights and ranges were learned by the answers of "
            "the float32 network."
        )


def _recipe(run: Checkpoint) -> Iterator[str]:
    name = run.recipe_name or ""
    known = {each.name: each.default for each in fields(Recipe)}
    if name in RECIPES:
        known = asdict(find_recipe(name, run.model))
    rows = [
        (f"`{field}`", escape(_value(field, value)))
        for field, value in run.recipe.items()
        if field in known and field != _OF_THE_MACHINE and _differs(field, value, known[field])
    ]
    if name in RECIPES:
        yield f"The recipe `{name}`{', with other values of these fields:' if rows else '.'}"
    else:
        yield f"{_unknown(run.recipe_name)} Fields that are not at their defaults:"
    if rows:
        yield ""
        yield from table(("field", "value"), rows)
    yield ""
    yield f"{plural(len(run.history), 'epoch')} up to the weights that were kept."


def _unknown(name: str | None) -> str:
    """Returns a text: what is known of a recipe that this version does not have."""
    if name is None:
        return "The run does not say by which recipe: it is of an earlier version."
    if name == CUSTOM:
        return "A recipe of its own."
    return f"The recipe `{name}`, which this version does not have."


def _differs(field: str, value: Any, other: Any) -> bool:
    return other is MISSING or _value(field, value) != _value(field, other)


def _value(field: str, value: Any) -> str:
    if field == "teacher" and value:
        return Path(value).name
    return value if isinstance(value, str) else json.dumps(value)
