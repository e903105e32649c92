"""Finds the preprocessing of a network trained by other software: given, or known for it."""

from __future__ import annotations

from typing import Any, NamedTuple

from core.errors import UserError, in_words
from core.image_size import sides, size_text
from core.preprocess import MODES, Preprocess
from export.elsewhere import Elsewhere
from models.classifier import IMAGENET_MEAN, IMAGENET_STD
from models.imagenet import PublishedForm
from models.registry import TIMM, find_model
from models.saved_weights import SavedWeights

_FORM = ("size", "resize", "interpolation", "mean", "std")
_USUAL = (
    "usual are --size 224 --resize 256, --interpolation bilinear (torchvision) or bicubic (timm), "
    "--mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 (ImageNet's) or --mean 0.5 --std 0.5 "
    "(Inception's)"
)
_TIMM_ARGUMENTS = (
    "in_chans",
    "img_size",
    "input_size",
    "crop_pct",
    "crop_mode",
    "interpolation",
    "mean",
    "std",
)


class ForeignForm(NamedTuple):
    """Preprocessing and normalisation, and which parts of it were assumed."""

    published: PublishedForm
    assumed: tuple[str, ...]


def foreign_form(
    elsewhere: Elsewhere, known: PublishedForm | None, origin: str, what: str, channels: int = 3
) -> ForeignForm:
    """Returns the preprocessing: what is given takes precedence over what ``origin`` says.

    Raises:
        UserError: a part is neither given nor known for ``what``.
    """
    given = _given_form(elsewhere, channels)
    values: dict[str, Any] = {"crop_mode": "center"}
    if known is not None:
        preprocess = known.preprocess
        values = {
            "size": preprocess.crop,
            "resize": preprocess.resize,
            "interpolation": preprocess.interpolation,
            "crop_mode": preprocess.crop_mode,
        }
        for name, each in (("mean", known.mean), ("std", known.std)):
            if len(each) == channels or len(set(each)) == 1:  # else it is of other channels
                values[name] = each[:1] * channels if len(set(each)) == 1 else each
        if "size" in given:  # keep the ratio of crop to resize
            values["resize"] = preprocess.at(given["size"]).resize
    if missing := [f"--{name}" for name in _FORM if name not in given | values]:
        raise UserError(
            f"nothing says how images were prepared {what}: give "
            f"{' '.join(missing)}, as in training; {_USUAL}"
        )
    told = [f"{name} {_text(name, value)}" for name, value in values.items() if name not in given]
    assumed = [f"{', '.join(told)}, as {origin} (--size and so on)"] if known and told else []
    published = _published(values | given, channels)
    return ForeignForm(published, (*assumed, *_padding(published.preprocess)))


def _padding(preprocess: Preprocess) -> list[str]:
    """Returns in words that images get a border, as in timm where ``crop_pct`` is above 1."""
    resize, crop = preprocess.resize, preprocess.crop
    larger = any(cut > side for cut, side in zip(sides(crop), sides(resize), strict=True))
    if preprocess.crop_mode == "border" or not larger:
        return []
    return [
        f"images can get a black border, as resize {size_text(resize)} is smaller than size "
        f"{size_text(crop)} (--resize)"
    ]


def _given_form(elsewhere: Elsewhere, channels: int) -> dict[str, Any]:
    given = {name: getattr(elsewhere, name) for name in (*_FORM, "crop_mode")}
    given = {name: value for name, value in given.items() if value is not None}
    for name in ("mean", "std"):
        if name not in given:
            continue
        if len(given[name]) not in (1, channels):
            raise UserError(
                f"--{name} has {len(given[name])} numbers: images are {MODES[channels - 1]}, so "
                f"give one, or {channels}"
            )
        given[name] *= channels // len(given[name])
    return given


def known_form(model: str, saved: SavedWeights) -> tuple[PublishedForm | None, str]:
    """Returns the preprocessing by the file, else by the weights' publisher, and its origin."""
    arguments, form = saved.arguments, find_model(model).form
    try:
        if {"val_resize_size", "val_crop_size", "interpolation"} <= arguments.keys():
            known = torchvision_reference_form(arguments)
            return known, f"torchvision's training script validated, by the args in {saved.path}"
        if model.startswith(TIMM) and arguments:
            from models.timm_nets import timm_form

            known = timm_form(model.removeprefix(TIMM), _timm_arguments(arguments))
            return known, f"timm validates it, by the args in {saved.path}"
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{saved.path}: its args do not say how images are prepared ({in_words(error)})"
        ) from None
    if form is None:
        return None, ""
    publisher = "timm" if model.startswith(TIMM) else "its publisher"
    return form(), f"{publisher} has it for {model}"


def torchvision_reference_form(arguments: dict[str, Any]) -> PublishedForm:
    """Returns the validation preprocessing of torchvision's references/classification/train.py."""
    preprocess = Preprocess(
        resize=int(arguments["val_resize_size"]),
        crop=int(arguments["val_crop_size"]),
        interpolation=arguments["interpolation"],
    )
    return PublishedForm(preprocess, IMAGENET_MEAN, IMAGENET_STD)


def _timm_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: arguments.get(name) for name in _TIMM_ARGUMENTS}


def _published(values: dict[str, Any], channels: int) -> PublishedForm:
    border = values["crop_mode"] == "border"
    preprocess = Preprocess(
        resize=values["resize"],
        crop=values["size"],
        interpolation=values["interpolation"],
        crop_mode=values["crop_mode"],
        fill=tuple(round(255 * value) for value in values["mean"]) if border else (0,) * channels,
        channels=channels,
    )
    return PublishedForm(preprocess, tuple(values["mean"]), tuple(values["std"]))


def _text(name: str, value: Any) -> str:
    if name in ("size", "resize"):
        return size_text(value)
    return " ".join(f"{each:.4g}" for each in value) if isinstance(value, tuple) else str(value)
