"""Loads weights from a file that this project did not write into one of its networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import nn

from core.errors import UserError
from core.image_size import Size, size_text
from core.lazy import resolve
from models.channels import adapted
from models.closest_network import closest_network
from models.registry import TIMM, build_model, find_model
from models.saved_weights import SavedWeights, Tensors
from models.weight_places import Place, inside, on_meta, places, probe

SHOWN = 5  # most missing and most unexpected keys listed in an error
_MAX_CLASSES = 1_000_000


class Fitted(NamedTuple):
    """A network with the weights of a file."""

    network: nn.Module  # float32 (N, C, H, W) -> (N, classes), in evaluation mode
    classes: int
    place: Place
    others: tuple[str, ...]  # other entries of the file that fit too
    converted: bool = False  # from another form, by timm


def fit_weights(
    model: str,
    saved: SavedWeights,
    entry: str | None = None,
    size: Size | None = None,
    channels: int = 3,
) -> Fitted:
    """Returns network ``model`` with the weights in ``saved``.

    The number of classes follows from the shape of the head. If several entries fit, averaged
    (EMA) weights are preferred.

    Args:
        model: registry name.
        saved: from :func:`models.saved_weights.read_weights`.
        entry: location of the weights in the file, see :attr:`Place.entry`; None to search for it.
        size: of the images, as in :func:`models.registry.build_model`.
        channels: of the images; weights for RGB are adapted to others, as timm does it.

    Raises:
        UserError: the weights do not fit (the message lists the first missing and unexpected keys
            and the network that would fit) or are not finite, several entries fit, or there is no
            ``entry``.
    """
    expected, head = probe(model, channels)
    place, others = _find(saved, expected, entry)
    tensors, converted = adapted(inside(saved, place), expected, channels), False
    classes = _classes(tensors, expected, head)
    misfit = _misfit(tensors, on_meta(model, classes, size, channels) if classes else expected)
    if misfit:
        if (found := _converted(model, saved, place, size, channels)) is None:
            if size and classes and not _misfit(tensors, on_meta(model, classes, None, channels)):
                native = size_text(find_model(model).native_size)
                raise UserError(
                    f"{saved.path}: its weights fit {model} at its own size, of {native} pixels, "
                    f"and timm resamples them to no other: {misfit}; leave out --size "
                    f"{size_text(size)}"
                )
            headless = {key: expected[key] for key in head} | tensors
            if classes is None and not _misfit(headless, expected):
                advice = "they are of this network without its head: save them with it"
            else:
                advice = closest_network(model, saved, place)
            raise UserError(f"{saved.path}: its weights do not fit {model}: {misfit}; {advice}")
        (place, tensors, classes), converted = found, True
    assert classes is not None  # without a head nothing fits
    network = build_model(model, num_classes=classes, size=size, channels=channels)
    state = network.state_dict()
    for key in state.keys() & tensors.keys():
        state[key] = tensors[key].to(state[key].dtype)
    _check_values(state, saved, place)
    network.load_state_dict(state)
    return Fitted(network.eval(), classes, place, others, converted)


def _converted(
    model: str, saved: SavedWeights, place: Place, size: Size | None, channels: int
) -> tuple[Place, Tensors, int] | None:
    """Returns the weights as timm converts them, and their classes; None if they do not fit."""
    if not model.startswith(TIMM):
        return None
    convert = resolve("models.timm_nets:timm_converted")
    network = build_model(model, size=size, channels=channels)
    expected, head = probe(model, channels)
    for each in dict.fromkeys((place, Place(place.group, ""))):
        tensors = convert(model.removeprefix(TIMM), inside(saved, each), network)
        tensors = adapted(tensors, expected, channels) if tensors else tensors
        classes = _classes(tensors, expected, head) if tensors else None
        if classes and not _misfit(tensors, on_meta(model, classes, size, channels)):
            return each, tensors, classes
    return None


def _find(
    saved: SavedWeights, keys: Collection[str], entry: str | None
) -> tuple[Place, tuple[str, ...]]:
    if not saved.groups:
        holds = f" but {', '.join(saved.classes[:SHOWN])}" if saved.classes else ""
        raise UserError(f"{saved.path}: holds no weights{holds}; pass a state dict")
    found = places(saved, keys)
    if entry is not None:
        entries = [place.entry for place in found]
        found = Counter({place: n for place, n in found.items() if _within(place, entry)})
        if not found and entry in saved.groups:  # its keys have another form
            return Place(entry, ""), ()
        if not found:
            known = ", ".join(repr(each) for each in entries[:SHOWN]) or "none"
            raise UserError(f"{saved.path}: no weights at {entry!r}; there are {known}")
    if not found:
        largest = max(saved.groups, key=lambda group: len(saved.groups[group]))
        return Place(largest, ""), ()
    most = max(found.values())
    best = [place for place, count in found.items() if count == most]
    averaged = [place for place in best if "ema" in place.entry.replace("_", ".").split(".")]
    taken = averaged if len(averaged) == 1 else best
    if len(taken) > 1:
        known = ", ".join(place.entry or "''" for place in taken)
        raise UserError(
            f"{saved.path}: holds the weights of this network {len(taken)} times; say by --entry "
            f"which are meant: {known}"
        )
    return taken[0], tuple(place.entry for place in best if place is not taken[0])


def channels_in(model: str, saved: SavedWeights, entry: str | None = None) -> int:
    """Returns the channels of the images that weights are for; 3 if they do not say.

    They are told by the first convolution, the tensor whose shape depends on them.

    Raises:
        UserError: as :func:`fit_weights` does where there are no such weights.
    """
    rgb = on_meta(model, 1)
    place, _ = _find(saved, rgb, entry)
    tensors = inside(saved, place)
    try:
        grey = on_meta(model, 1, channels=1)
    except UserError:  # it is only for RGB
        return 3
    for key, stem in rgb.items():
        if key in tensors and stem.shape != grey[key].shape and tensors[key].dim() == stem.dim():
            found = round(3 * tensors[key].numel() / stem.numel(), 3)
            return int(found) if found in (1, 2, 4) else 3
    return 3


def _within(place: Place, entry: str) -> bool:
    return place.entry == entry or place.entry.startswith(f"{entry}.")


def _classes(tensors: Tensors, expected: Tensors, head: dict[str, int]) -> int | None:
    """Returns the number of classes of the head in ``tensors``; None without a head."""
    for key, axis in head.items():
        if key in tensors and tensors[key].dim() == expected[key].dim():
            classes: int = tensors[key].shape[axis]
            return classes if 1 <= classes <= _MAX_CLASSES else None
    return None


def _misfit(tensors: Tensors, expected: Tensors) -> str:
    """Returns a text that says why ``tensors`` do not fit a network; empty if they do.

    Args:
        tensors: by key.
        expected: the network's own, by key.
    """
    # Weights saved before torch 0.4.1 have no num_batches_tracked.
    missing = [
        key for key in expected if key not in tensors and not key.endswith("num_batches_tracked")
    ]
    unknown = [key for key in tensors if key not in expected]
    others = [
        f"{key} {why}"
        for key in expected.keys() & tensors.keys()
        if (why := unfit(tensors[key], expected[key]))
    ]
    kinds = {"missing": missing, "unexpected": unknown, "of another form": sorted(others)}
    return ", ".join(f"{len(keys)} {kind} ({_first(keys)})" for kind, keys in kinds.items() if keys)


def _check_values(state: Tensors, saved: SavedWeights, place: Place) -> None:
    """Raises UserError if weights are NaN or infinite as float32, or a variance is negative."""
    for key, tensor in state.items():
        wrong = {"NaN or infinite": ~tensor.isfinite()}
        if key.endswith("running_var"):
            wrong["negative, which no variance is"] = tensor < 0
        for why, where in wrong.items():
            if count := int(where.sum()):
                raise UserError(
                    f"{saved.path}: {count:,} of the {tensor.numel():,} values of "
                    f"{place.prefix}{key} are {why}; take a checkpoint from before training "
                    "diverged, or copy the file again"
                )


def unfit(tensor: torch.Tensor, expected: torch.Tensor) -> str:
    """Returns a text that says why ``tensor`` cannot replace ``expected``; empty if it can."""
    if tensor.shape != expected.shape:
        return f"is {list(tensor.shape)} and not {list(expected.shape)}"
    if tensor.is_quantized or tensor.layout != torch.strided:
        return "is quantized or sparse"
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        return "has more elements than the file holds"
    # num_batches_tracked may be a float if all weights were cast; nothing is computed from it.
    kind_differs = tensor.dim() and tensor.is_floating_point() != expected.is_floating_point()
    is_float8 = tensor.is_floating_point() and tensor.element_size() == 1  # goes with scales
    if kind_differs or is_float8:
        return f"is {tensor.dtype} and not {expected.dtype}"
    return ""


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")
