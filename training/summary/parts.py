"""What the READMEs of all runs have: how it was trained, where, and what to do next."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from report.format import duration, millions, number
from report.markdown import escape, fenced, plain, table
from training.qat.names import SUFFIX
from training.records import RunFacts

README, CURVES, CONFUSION = "README.md", "curves.png", "confusion.png"
RELIABILITY = "reliability.png"
_FIRST_FIELDS = (
    "epochs",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "label_smoothing",
    "class_weights",
    "focal_gamma",
    "sampler",
    "mixup",
    "ema",
    "crop",
)


def how_trained(facts: RunFacts) -> list[str]:
    """Returns the section on command and recipe."""
    first = [(name, facts.recipe[name]) for name in _FIRST_FIELDS if name in facts.recipe]
    return [
        "## How it was trained",
        "",
        "This line repeats it:",
        "",
        *fenced(facts.command),
        "",
        *_values([("first weights", facts.origin), ("recipe", facts.recipe_name), *first]),
        "",
        f"<details><summary>All {len(facts.recipe)} fields of the recipe</summary>",
        "",
        *_values(list(facts.recipe.items())),
        "",
        "</details>",
        "",
    ]


def how_to_go_on(facts: RunFacts) -> list[str]:
    """Returns the sections on the next commands, and on machine and versions."""
    return [
        "## What to do next",
        "",
        *fenced(_next(facts)),
        "",
        "## Machine and versions",
        "",
        *_values(
            [
                ("trained on", facts.device),
                ("precision", facts.precision),
                ("training took", number(facts.seconds, duration)),
                ("images per second", number(facts.images_per_second, "{:,.0f}".format)),
                ("parameters", millions(facts.parameters)),
                ("versions", ", ".join(" ".join(pair) for pair in facts.versions.items())),
                ("date", facts.date),
            ]
        ),
        "",
        "Images per second is the median over the epochs, of training images only.",
        "",
    ]


def _values(rows: Iterable[tuple[str, object]]) -> list[str]:
    return table(("what", "value"), [(escape(name), plain(value)) for name, value in rows])


def _next(facts: RunFacts) -> str:
    model, name = shlex.quote(facts.model), shlex.quote(facts.data)
    qat = " ARGS=--qat" if facts.recipe.get("qat") else ""
    learned_on = facts.data.removesuffix(SUFFIX) if qat else facts.data
    path = f"DATA={shlex.quote(facts.data_path or learned_on)}"
    if qat and facts.recipe["weights"] == "imagenet":
        path = "WEIGHTS=imagenet"
    if not qat and (fold := re.search(r"(.*)-fold(\d+of\d+)$", facts.data)):
        path = f"DATA={shlex.quote(facts.data_path or fold[1])}"
        path += f' ARGS="--fold {fold[2]}"'
    steps = {
        f"make export MODEL={model} {path}{qat}": "to ONNX and TensorRT, checked against torch",
        f"make bench MODEL={model} DATA={name}": "what an image costs on your machine",
        f"make serve MODEL={model} DATA={name}": "the fastest of them, over HTTP",
    }
    width = max(map(len, steps))
    return "\n".join(f"{step:{width}}  # {what}" for step, what in steps.items())
