"""What a search tries: networks, and the fields of their recipes that it changes."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.errors import UserError
from core.names import canonical_name
from models.registry import find_model
from training.recipe import Recipe
from training.recipes import default_recipe, find_recipe

if TYPE_CHECKING:
    from optuna import Trial

RATES = (0.1, 10.0)  # times the recipe's learning rate
DECAYS = (1e-4, 0.3)
RANDAUGMENT, MIXUP, MIN_SCALE = 15, 0.4, 0.3


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A network with the recipe that a search begins from.

    Attributes:
        model: registry name.
        recipe_name: name of the recipe.
        recipe: the recipe, with the epochs, batch and image size of the search.
    """

    model: str
    recipe_name: str
    recipe: Recipe

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Returns the fields of the recipe that ``trial`` changes.

        They are the learning rate, 0.1 to 10 times the recipe's; weight decay; and augmentation:
        RandAugment's magnitude, mixup's alpha, and, if the recipe crops at random, the smallest
        crop.
        """
        factor = trial.suggest_float("rate_factor", *RATES, log=True)
        fields: dict[str, Any] = {
            "learning_rate": float(f"{self.recipe.learning_rate * factor:.3g}"),
            "weight_decay": float(f"{trial.suggest_float('weight_decay', *DECAYS, log=True):.3g}"),
            "randaugment": trial.suggest_int("randaugment", 0, RANDAUGMENT),
            "mixup": round(trial.suggest_float("mixup", 0.0, MIXUP), 2),
        }
        if self.recipe.min_scale < 1:
            fields["min_scale"] = round(trial.suggest_float("min_scale", MIN_SCALE, 1.0), 2)
        return fields

    def changed(self, fields: dict[str, Any]) -> Recipe:
        """Returns the recipe with ``fields``."""
        return dataclasses.replace(self.recipe, **fields)


def find_candidates(
    models: tuple[str, ...],
    data: str,
    *,
    recipe_name: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    size: int | None = None,
    seed: int = 0,
) -> list[Candidate]:
    """Returns the networks of a search with their recipes.

    Args:
        models: registry names.
        data: data set by name, or a folder.
        recipe_name: recipe of all; None for the default of each network and these data.
        epochs: epochs of a trial; None for the recipe's.
        batch_size: images in a batch; None for the recipe's.
        size: side of the images in pixels; None for the recipe's.
        seed: seed of the recipes.

    Raises:
        UserError: no network, an unknown one or an unknown recipe, or an invalid number.
    """
    if not models:
        raise UserError("--models is empty: name the networks to choose from")
    found = []
    for model in dict.fromkeys(canonical_name(each) for each in models):
        find_model(model)
        name = recipe_name or default_recipe(model, data)
        recipe = dataclasses.replace(find_recipe(name, model), seed=seed)
        if recipe.qat:
            raise UserError(
                f"--recipe-name {name}: that trains the int8 form of a network that is trained "
                "already; search for the network first, with another recipe"
            )
        if epochs is not None:
            recipe = dataclasses.replace(recipe, epochs=epochs)
        if batch_size is not None:
            recipe = dataclasses.replace(recipe, batch_size=batch_size)
        if size is not None:
            wider = round(size * recipe.resize / recipe.crop)
            recipe = dataclasses.replace(recipe, crop=size, resize=wider, train_crop=None)
        recipe.check()
        found.append(Candidate(model=model, recipe_name=name, recipe=recipe))
    return found


def check_weights(candidates: list[Candidate]) -> None:
    """Checks that there are the ImageNet weights from which recipes start.

    Raises:
        UserError: some are missing; it names their networks, and those that are left.
    """
    from training.networks import published_weights

    missing: dict[str, UserError] = {}
    for each in candidates:
        if each.recipe.weights == "imagenet":
            try:
                published_weights(each.model)
            except UserError as error:
                missing[each.model] = error
    if not missing:
        return
    reason = next(iter(missing.values()))
    if len(candidates) == 1:
        raise reason
    left = " ".join(each.model for each in candidates if each.model not in missing)
    without = f"; --models {left} searches without them" if left else ""
    raise UserError(
        f"ImageNet weights of {len(missing)} of {len(candidates)} networks are missing "
        f"({', '.join(missing)}){without}; {reason}"
    )


def as_text(candidates: list[Candidate], p99: float | None) -> str:
    """Returns a text that is the same for searches that may go on with each other's trials."""
    plain = [dataclasses.asdict(each) for each in candidates]
    return json.dumps({"candidates": plain, "p99": p99}, sort_keys=True)
